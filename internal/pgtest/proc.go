package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processState reads a process's state letter and parent; ok is false where there is no such process.
func processState(pid int) (state byte, parent int, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// The name in parentheses may hold anything, so the fields are counted from behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err == nil
}

// childrenOf lists the processes that pid started and that run still.
func childrenOf(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var children []int
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if state, parent, ok := processState(id); ok && parent == pid && state != 'Z' {
			children = append(children, id)
		}
	}
	return children
}

// killAndWait kills a server process and waits until it is gone; it is not our child, so it cannot be waited for.
func killAndWait(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return err
	}
	for deadline := time.Now().Add(stopGrace); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if state, _, ok := processState(pid); !ok || state == 'Z' {
			return nil
		}
	}
	return fmt.Errorf("server process %d survived SIGKILL", pid)
}

// removeInterlock removes the small System V segment by which PostgreSQL notices a second server on one data directory.
// A server that was killed leaves it, and its id in postmaster.pid; one that ended in order leaves neither.
func removeInterlock(dataDir string) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return
	}
	const shmemLine = 6 // "key id", counted from 0
	lines := strings.Split(string(b), "\n")
	if len(lines) <= shmemLine {
		return
	}
	fields := strings.Fields(lines[shmemLine])
	if len(fields) != 2 {
		return
	}
	if id, err := strconv.Atoi(fields[1]); err == nil {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
