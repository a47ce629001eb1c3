// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/siem"
)

// syslogCarrier sends to a receiver that never answers. RFC 5425 has no
// acknowledgement: what TCP has accepted may still be lost in a buffer when the
// receiver dies. This is what is done about it.
//
// Entries go out in windows, one connection for each. A window is *closed* when
// we said that nothing more comes (close_notify, FIN) and the receiver ended
// the connection in turn, at a record's end and without a reset: it has then
// read every byte. It is *settled* when the receiver has lived on for the time
// of Sink.Settle after that, in which it writes what it holds in its queues.
// That it lived on is known by an unbroken chain: the next connection is always
// made before the last one is closed, so that at every moment at least one is
// open to the process that took the window, and a process that dies breaks it.
// When any link breaks, everything that is not settled is sent again.
//
// So nothing is lost by a receiver that is killed, restarted, or cut off and
// that writes what it took within the time of Settle. What it loses afterwards
// (a disk, a power cut before it flushed), or behind an address that leads to
// several processes, is beyond what can be known from here: see
// docs/operate.md for a receiver that leaves no such gap.
type syslogCarrier struct {
	client *outbound.Client
	sink   *Sink
	cfg    *Config

	windows []*window // the oldest first; the last one is open
	n       int64     // settled
}

const (
	// windowAge is how old an open window with entries in it becomes.
	windowAge = time.Second
	// windowMost is how many entries a window holds, and notSettled how many may
	// be on their way in all: what is sent again after a failure.
	windowMost, notSettled = 20_000, 100_000
	// quiet is how long we listen, after a new connection was made, whether the
	// old one was broken before: news of that may come a little later.
	quiet = 250 * time.Millisecond
)

// window is a connection and what was sent on it.
type window struct {
	conn   *tls.Conn
	n      int64     // entries
	opened time.Time // its handshake was done
	first  time.Time // its first entry was sent
	ending sync.WaitGroup

	mu      sync.Mutex
	closing bool          // we have said that nothing more comes
	closed  time.Time     // the receiver ended it in turn
	err     error         // or it broke
	done    chan struct{} // closed when it did either
}

func (c *syslogCarrier) reset() {
	for _, w := range c.windows {
		_ = w.conn.NetConn().Close()
		<-w.done
		w.ending.Wait()
	}
	c.windows, c.n = nil, 0
}

func (c *syslogCarrier) send(ctx context.Context, events []siem.Event) (int, error) {
	if err := c.broken(); err != nil {
		return 0, err
	}
	if len(c.windows) == 0 {
		if err := c.open(ctx); err != nil {
			return 0, err
		}
	}
	var waiting int64
	for _, w := range c.windows {
		waiting += w.n
	}
	if waiting >= notSettled {
		return 0, nil
	}
	w := c.windows[len(c.windows)-1]
	var frames []byte
	for i := range events {
		frames = siem.Frame(frames, siem.Syslog(c.cfg.Source, c.sink.Format, &events[i]))
	}
	stop := context.AfterFunc(ctx, func() { _ = w.conn.NetConn().Close() })
	defer stop()
	if err := w.conn.SetWriteDeadline(c.cfg.Now().Add(c.cfg.Wait)); err != nil {
		return 0, err
	}
	if _, err := w.conn.Write(frames); err != nil {
		return 0, err
	}
	if w.n == 0 {
		w.first = c.cfg.Now()
	}
	w.n += int64(len(events))
	return len(events), nil
}

// open makes the next connection.
func (c *syslogCarrier) open(ctx context.Context) error {
	conn, err := c.client.Dial(ctx, c.sink.Address)
	if err != nil {
		return err
	}
	w := &window{conn: conn, opened: c.cfg.Now(), done: make(chan struct{})}
	go w.listen(c.cfg.Now)
	c.windows = append(c.windows, w)
	return nil
}

// listen waits for the end of the connection. A receiver has nothing to say;
// what it says all the same is not read as anything.
func (w *window) listen(now func() time.Time) {
	defer close(w.done)
	_, err := io.Copy(io.Discard, w.conn)
	_ = w.conn.NetConn().Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && w.closing: // io.Copy has no error for the end of the stream
		w.closed = now()
	case err == nil:
		w.err = &codedError{"closed_early", -1}
	case w.closing && timeout(err):
		w.err = &codedError{"end_not_confirmed", -1}
	default:
		w.err = err
	}
}

// finish says that nothing more comes, and gives the receiver time to agree.
func (w *window) finish(wait time.Duration, now func() time.Time) {
	select {
	case <-w.done: // broken, before we said anything
		return
	case <-time.After(quiet):
	}
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	err := errors.Join(w.conn.SetDeadline(now().Add(wait)), w.conn.CloseWrite())
	if tcp, ok := w.conn.NetConn().(*net.TCPConn); ok && err == nil {
		err = tcp.CloseWrite()
	}
	if err != nil {
		_ = w.conn.NetConn().Close()
	}
}

func (w *window) state() (closed time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed, w.err
}

// broken reports what broke the chain. An open connection that breaks while
// nothing is unsettled is no loss: it is forgotten.
func (c *syslogCarrier) broken() error {
	for _, w := range c.windows {
		if _, err := w.state(); err != nil {
			if len(c.windows) == 1 && w.n == 0 {
				n := c.n
				c.reset()
				c.n = n
				return nil
			}
			return err
		}
	}
	return nil
}

// taken settles what can be settled, and turns to a new window when the open
// one is old, or when a sign of life is needed.
func (c *syslogCarrier) taken(ctx context.Context) (int64, error) {
	if err := c.broken(); err != nil {
		return 0, err
	}
	for len(c.windows) > 1 && c.settled() {
		c.n += c.windows[0].n
		c.windows = c.windows[1:]
	}
	if c.turn() {
		last := c.windows[len(c.windows)-1]
		if err := c.open(ctx); err != nil {
			return 0, err
		}
		last.ending.Go(func() { last.finish(c.cfg.Wait, c.cfg.Now) })
	}
	return c.n, nil
}

// settled reports whether the oldest window is: it is closed, and so is every
// one after it up to one whose successor was opened long enough afterwards.
func (c *syslogCarrier) settled() bool {
	at, _ := c.windows[0].state()
	for i, w := range c.windows[:len(c.windows)-1] {
		if closed, _ := w.state(); closed.IsZero() {
			return false
		}
		if c.windows[i+1].opened.Sub(at) >= c.sink.Settle {
			return true
		}
	}
	return false
}

// turn reports whether it is time for a new window.
func (c *syslogCarrier) turn() bool {
	if len(c.windows) == 0 {
		return false
	}
	now, last := c.cfg.Now(), c.windows[len(c.windows)-1]
	if last.n > 0 {
		return last.n >= windowMost || now.Sub(last.first) >= windowAge
	}
	if len(c.windows) == 1 {
		return false
	}
	// Empty, and others wait to be settled: show that the receiver lives.
	newest, _ := c.windows[len(c.windows)-2].state()
	oldest, _ := c.windows[0].state()
	return !newest.IsZero() && !oldest.IsZero() && now.Sub(oldest) >= c.sink.Settle
}
