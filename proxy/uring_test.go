package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// newTestRing is an io_uring, and n pairs of sockets.
func newTestRing(t testing.TB, n int) (u *uring, ours, theirs []int) {
	t.Helper()
	u, err := newUring()
	if err != nil {
		t.Skipf("this system has none: %v", err)
	}
	t.Cleanup(u.close)
	for range n {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
		ours, theirs = append(ours, fds[0]), append(theirs, fds[1])
	}
	return u, ours, theirs
}

// result waits for the next result.
func (u *uring) result(t testing.TB) cqe {
	t.Helper()
	var one [1]cqe
	for u.results(one[:]) == 0 {
		if errno := u.enter(1); errno != 0 && errno != syscall.EINTR {
			t.Fatal(errno)
		}
	}
	return one[0]
}

func mustSend(t testing.TB, fd int, text string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// TestUringReceive receives what is there before it is asked for and what comes later, and the end of the stream, from
// buffers that are used again and again: their queue goes round many times.
func TestUringReceive(t *testing.T) {
	u, ours, theirs := newTestRing(t, 1)
	for i := range 1 << 17 { // more than the tail of that queue can count
		text := fmt.Sprint("message ", i)
		if i%2 == 0 {
			mustSend(t, theirs[0], text)
		}
		u.receive(ours[0], uint64(i))
		if i%2 == 1 {
			if errno := u.enter(0); errno != 0 && errno != syscall.EINTR {
				t.Fatal(errno)
			}
			mustSend(t, theirs[0], text)
		}
		r := u.result(t)
		id, ok := r.buffer()
		if r.userData != uint64(i) || !ok || r.res < 0 || string(u.buffer(int(id), int(r.res))) != text {
			t.Fatalf("message %d: %+v", i, r)
		}
		u.giveBack(id)
	}
	u.receive(ours[0], 0)
	unix.Close(theirs[0])
	if r := u.result(t); r.res != 0 {
		t.Errorf("the end of the stream is %+v", r)
	}
}

// TestUringNoBuffer has more arrive than there are buffers.
func TestUringNoBuffer(t *testing.T) {
	const n = uringBuffers + 10
	u, ours, theirs := newTestRing(t, n)
	for i := range n {
		u.receive(ours[i], uint64(i))
		mustSend(t, theirs[i], "x")
	}
	var got, without int
	for range n {
		r := u.result(t)
		if _, ok := r.buffer(); ok && r.res == 1 {
			got++
		} else if r.res == -int32(unix.ENOBUFS) {
			without++
		} else {
			t.Fatalf("%+v", r)
		}
	}
	if got != uringBuffers || without != n-uringBuffers {
		t.Errorf("%d have a buffer, %d have not", got, without)
	}
}

// TestUringManyOperations asks for more at once than the queues have room for: nothing is lost.
func TestUringManyOperations(t *testing.T) {
	const n = 2*uringResults + uringEntries/2
	u, ours, theirs := newTestRing(t, 1)
	for i := range n {
		u.poll(theirs[0], unix.POLLIN, uint64(i))
	}
	mustSend(t, ours[0], "x")
	seen := make([]bool, n)
	for range n {
		r := u.result(t)
		if seen[r.userData] {
			t.Fatalf("%d comes twice", r.userData)
		}
		seen[r.userData] = true
	}
}

// TestUringSend sends what there is room for: all, a part, nothing, and to a peer that has gone. The result is there at once.
func TestUringSend(t *testing.T) {
	u, ours, theirs := newTestRing(t, 1)
	send := func(b []byte) int32 {
		u.send(ours[0], b, 7)
		for errno := u.enter(0); errno != 0; errno = u.enter(0) {
			if errno != syscall.EINTR {
				t.Fatal(errno)
			}
		}
		var one [1]cqe
		if u.results(one[:]) != 1 || one[0].userData != 7 {
			t.Fatal("there is no result")
		}
		return one[0].res
	}
	if n := send([]byte("hello")); n != 5 {
		t.Errorf("sent %d", n)
	}
	got := make([]byte, 5)
	if n, err := unix.Read(theirs[0], got); n != 5 || string(got) != "hello" {
		t.Errorf("%q arrives, %v", got[:n], err)
	}
	much := bytes.Repeat([]byte("x"), 1<<20)
	if n := send(much); n <= 0 || int(n) >= len(much) {
		t.Errorf("sent %d of %d", n, len(much))
	}
	for n := int32(1); n > 0; {
		if n = send(much); n < 0 && n != -int32(unix.EAGAIN) {
			t.Errorf("without room the result is %v", syscall.Errno(-n))
		}
	}
	unix.Close(theirs[0])
	if n := send(much); n != -int32(unix.EPIPE) && n != -int32(unix.ECONNRESET) {
		t.Errorf("without a peer the result is %d", n)
	}
}

// TestCollected has several goroutines write to a session's client what events make its loop send, and what they send by
// themselves: nothing is lost or changes places.
func TestCollected(t *testing.T) { eachWay(t, collected) }

func collected(t *testing.T, newServer func(testing.TB, Config) *Server) {
	srv := newServer(t, Config{})
	lt := newLoopTest(t, srv, "tcp")
	const rounds, perRound = 2000, 3
	done := make(chan error, 1)
	go func() {
		// The backend's messages go through the loop, in order.
		for i := range rounds {
			if _, err := lt.toServer.Write(tagMessage(1, i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() {
		sd := &lt.front.side // which runs by itself, and not in the loop
		for !sd.claim() {
			runtime.Gosched()
		}
		sd.lent = nil
		defer sd.release()
		for i := range rounds * (perRound - 1) {
			lt.clientMu.Lock()
			err := sd.write(lt.client, tagMessage(2, i))
			lt.clientMu.Unlock()
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	next := [3]int{}
	for range rounds * perRound {
		who, i := readTag(t, lt.toClient)
		if next[who] != i {
			t.Fatalf("of writer %d message %d comes, not %d", who, i, next[who])
		}
		next[who]++
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestHotAndCalm has a loop become hot, and calm again when one of its sessions has to wait for the table. Every other session
// goes on, with what has come meanwhile.
func TestHotAndCalm(t *testing.T) {
	table, waiting, goOn := gatedTable()
	srv := newLoopServerThat(t, "hot", Config{Table: table})
	if srv.loops[0].ring == nil {
		t.Skip("this system has no io_uring")
	}
	slow := newLoopTest(t, srv, "tcp")
	var others []*loopTest
	for range 20 {
		others = append(others, newLoopTest(t, srv, "unix"))
	}
	parked := func() (n int) {
		for _, lt := range others {
			k := &lt.front.side.sock
			k.mu.Lock()
			if k.parked {
				n++
			}
			k.mu.Unlock()
		}
		return n
	}
	for round := range 3 {
		eventually(t, "the loop is hot", func() bool {
			for _, lt := range others {
				lt.turn(t)
			}
			return parked() == len(others)
		})
		if _, err := slow.toClient.Write(query(fmt.Sprintf("SELECT raftable('k', '%d')", round))); err != nil {
			t.Fatal(err)
		}
		<-waiting
		if n := parked(); n > 0 {
			t.Errorf("%d sockets are parked while another session waits", n)
		}
		for _, lt := range others {
			lt.turn(t)
		}
		goOn <- struct{}{}
		readMessages(t, slow.toClient, "TDCZ")
	}
}

// tagMessage is a notice-like message that tells who wrote it, and its number.
func tagMessage(who, i int) []byte {
	return finishMessage(fmt.Appendf([]byte("N\x00\x00\x00\x00"), "%d/%08d", who, i), 0)
}

func readTag(t testing.TB, c net.Conn) (who, i int) {
	t.Helper()
	b := make([]byte, len(tagMessage(1, 0)))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(b[headerSize:]), "%d/%d", &who, &i); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return who, i
}
