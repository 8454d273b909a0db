package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// ErrNoPostgres is the error of a machine without the PostgreSQL server programs.
var ErrNoPostgres = errors.New("no PostgreSQL server programs (initdb, postgres) found in PATH, " +
	"/usr/lib/postgresql/*/bin or pg_config --bindir: install them, on Debian with: apt-get install postgresql")

// debianBins is where Debian keeps the server programs of each major version, outside PATH.
const debianBins = "/usr/lib/postgresql/*/bin"

var findBinDir = sync.OnceValues(func() (string, error) {
	return pickBinDir(os.Getenv("PATH"), debianBins, pgConfigBinDir)
})

// BinDir is the directory of the newest usable PostgreSQL server programs on this machine.
func BinDir() (string, error) { return findBinDir() }

// Program is the path of one of PostgreSQL's programs, such as "psql" or "pg_dump".
func Program(name string) (string, error) {
	if dir, err := BinDir(); err == nil {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errors.New(name + " not found: install it, on Debian with: apt-get install postgresql-client")
	}
	return path, nil
}

// pickBinDir looks for a directory with both initdb and postgres: in path, then by the pattern (newest version first),
// then where pg_config says.
func pickBinDir(path, pattern string, pgConfig func() string) (string, error) {
	dirs := filepath.SplitList(path)
	byVersion, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	sort.Slice(byVersion, func(i, j int) bool { return versionIn(byVersion[i]) > versionIn(byVersion[j]) })
	dirs = append(dirs, byVersion...)
	for _, dir := range dirs {
		if usable(dir) {
			return dir, nil
		}
	}
	if dir := pgConfig(); usable(dir) {
		return dir, nil
	}
	return "", ErrNoPostgres
}

// versionIn reads the version out of …/15/bin, or gives -1.
func versionIn(dir string) float64 {
	v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
	if err != nil {
		return -1
	}
	return v
}

func pgConfigBinDir() string {
	out, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func usable(dir string) bool {
	return filepath.IsAbs(dir) && executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
