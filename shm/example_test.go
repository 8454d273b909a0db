package shm_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/raftproxy/raftproxy/shm"
)

func Example() {
	dir, err := os.MkdirTemp("", "shm-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "table")

	w, err := shm.Create(shm.Options{Path: path})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	for _, kv := range [][2]string{{"feature/search", "off"}, {"feature/dark-mode", "on"}} {
		if err := w.Set(7, []byte(kv[0]), []byte(kv[1])); err != nil {
			log.Fatal(err)
		}
	}
	w.Commit(7)

	r, err := shm.Open(path) // in any process
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	value, ok := r.Get(nil, []byte("feature/search"))
	fmt.Printf("%s %v\n", value, ok)
	p, err := r.Picture()
	if err != nil {
		log.Fatal(err)
	}
	for key, value := range p.All() {
		fmt.Printf("%d: %s=%s\n", p.Index(), key, value)
	}
	// Output:
	// off true
	// 7: feature/dark-mode=on
	// 7: feature/search=off
}
