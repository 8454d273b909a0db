// Package child starts processes that must not outlive the one that started them: throw-away database servers, the
// nodes of a demo, the nodes of a test. It knows nothing about what it runs.
package child

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a started process. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read only after done is closed
}

// Start starts cmd in a process group of its own, so that a Ctrl-C at the terminal reaches only the parent, and has the
// kernel send deathSignal to it should this process die first. cmd belongs to the Process from here on. Its output
// should go to files: a pipe would keep Wait busy for as long as any grandchild holds it.
func Start(cmd *exec.Cmd, deathSignal syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = deathSignal
	cmd.SysProcAttr.Setpgid = true
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that forked, not to the process. This goroutine keeps its
		// thread until the child has ended, so the signal cannot come early because the Go runtime retired a thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Pid is the process id. It names the process only until Done is closed.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not been seen to end.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait blocks until the process has ended and says how: nil for exit code 0, otherwise an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// ExitCode waits for the end of the process and gives its exit code, -1 where a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends sig to the process itself, not to its group. A process that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if err != nil && !p.Running() {
		return nil
	}
	return err
}

// Kill ends the whole process group with SIGKILL and waits until the process is gone.
func (p *Process) Kill() error {
	if p.Running() {
		if err := syscall.Kill(-p.Pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	<-p.done
	return nil
}

// Stop sends sig and waits; where the process is still there after grace it kills the group and says so in the error.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s (pid %d) did not end within %v of %v and was killed", p.cmd.Path, p.Pid(), grace, sig)
}
