package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Names within the data directory.
const (
	identityFile = "identity.json"
	lockFile     = "lock"
	floorFile    = "floor"
	raftDir      = "raft"
)

const identityFormat = 1

// identity says whose data directory this is. It is on disk before the Raft node
// first runs, so that a directory that was emptied or exchanged is noticed.
type identity struct {
	Format      int               `json:"format_version"`
	ClusterID   string            `json:"cluster_id"`
	ReplicaID   uint64            `json:"replica_id"`
	RaftAddress string            `json:"raft_address"`
	Members     map[uint64]string `json:"first_members"`
	// Starts counts the starts of this member; it is the epoch of its commands.
	Starts uint64 `json:"starts"`
	// Started is true from the moment at which the Raft log has kept something
	// and before any other member could learn of it.
	Started bool `json:"started"`
}

// dataDir is the data directory, locked for this process.
type dataDir struct {
	path string
	lock *os.File
	id   identity
}

// openDataDir locks the directory, and checks or writes its identity. It counts
// the start.
func openDataDir(cfg *Config) (_ *dataDir, err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	d := &dataDir{path: cfg.DataDir}
	if d.lock, err = lockDir(filepath.Join(d.path, lockFile)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.identify(cfg); err != nil {
		return nil, err
	}
	d.id.Starts++
	if err := d.save(); err != nil {
		return nil, err
	}
	return d, nil
}

// lockDir takes a lock that the kernel drops when its holder dies.
func lockDir(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, fmt.Errorf("data directory %s is in use by another process", filepath.Dir(name))
	}
	return nil, fmt.Errorf("locking %s: %w", name, err)
}

// identify reads the identity, or makes one for a directory that is new.
func (d *dataDir) identify(cfg *Config) error {
	name := filepath.Join(d.path, identityFile)
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.introduce(cfg)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &d.id); err != nil || d.id.ReplicaID == 0 || d.id.Starts == 0 {
		return fmt.Errorf("%s is damaged (%v); restore it, or replace this member by one with a new replica id and an empty data directory",
			name, err)
	}
	return d.check(cfg)
}

// introduce makes the identity of a member that starts for the first time.
func (d *dataDir) introduce(cfg *Config) error {
	left, err := os.ReadDir(filepath.Join(d.path, raftDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("data directory %s has a Raft log but no %s to say whose it is; restore that file, or start this member on the directory that it was started on before",
			d.path, identityFile)
	}
	if err := cfg.checkMembers(); err != nil {
		return err
	}
	d.id = identity{
		Format:      identityFormat,
		ClusterID:   clusterID(cfg.Members),
		ReplicaID:   cfg.ReplicaID,
		RaftAddress: cfg.RaftAddress,
		Members:     maps.Clone(cfg.Members),
	}
	return nil
}

// check compares the identity with what the node was told.
func (d *dataDir) check(cfg *Config) error {
	switch {
	case d.id.Format != identityFormat:
		return fmt.Errorf("data directory %s has format version %d, this program knows version %d",
			d.path, d.id.Format, identityFormat)
	case d.id.ReplicaID != cfg.ReplicaID:
		return fmt.Errorf("data directory %s belongs to replica %d, not to replica %d; start this member on its own directory, a new one on an empty directory",
			d.path, d.id.ReplicaID, cfg.ReplicaID)
	case d.id.RaftAddress != cfg.RaftAddress:
		return fmt.Errorf("replica %d joined with the Raft address %s, by which the other members know it, and cannot change to %s; keep the address (a host name may lead to another machine)",
			d.id.ReplicaID, d.id.RaftAddress, cfg.RaftAddress)
	}
	return nil
}

// markStarted makes Started durable.
func (d *dataDir) markStarted() error {
	if d.id.Started {
		return nil
	}
	d.id.Started = true
	return d.save()
}

// save writes the identity so that after a crash either the old one or the new
// one is there.
func (d *dataDir) save() error {
	raw, err := json.MarshalIndent(&d.id, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(d.path, identityFile), append(raw, '\n'))
}

func (d *dataDir) close() error { return d.lock.Close() }

// deploymentID keeps members of different groups from talking to each other.
func (d *dataDir) deploymentID() (uint64, error) {
	raw, err := hex.DecodeString(d.id.ClusterID)
	if err != nil || len(raw) != 8 {
		return 0, fmt.Errorf("%s is damaged: cluster id %q", identityFile, d.id.ClusterID)
	}
	id := uint64(0)
	for _, b := range raw {
		id = id<<8 | uint64(b)
	}
	return id | 2, nil // 0 and 1 mean something else to dragonboat
}

// clusterID names a group by its first members: they all have the same list.
func clusterID(members map[uint64]string) string {
	sum := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(sum, "%d=%s\n", id, members[id])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// writeDurably replaces a file's content, fsync included.
func writeDurably(name string, content []byte) (err error) {
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// adoptHostDir gives dragonboat's files the place where it looks for them on
// this host. It keeps them in a directory named after the host and refuses to
// run under another host name, but a container gets a new one with every
// re-creation, and whose data these are is for the identity to say.
func (d *dataDir) adoptHostDir() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	root := filepath.Join(d.path, raftDir)
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(root, 0o700)
	}
	if err != nil {
		return err
	}
	var hosts []string
	for _, e := range entries {
		if e.IsDir() {
			hosts = append(hosts, e.Name())
		}
	}
	switch {
	case len(hosts) == 0 || len(hosts) == 1 && hosts[0] == host:
		return nil
	case len(hosts) > 1:
		return fmt.Errorf("%s has directories for several host names %q; keep the one in use and move the others away", root, hosts)
	}
	// The flag file holds the host name too; dragonboat writes it anew. It goes
	// first, so that a crash in between leaves a state from which this goes on.
	if err := os.Remove(filepath.Join(root, "dragonboat.ds")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(filepath.Join(root, hosts[0]), filepath.Join(root, host)); err != nil {
		return err
	}
	return syncDir(root)
}
