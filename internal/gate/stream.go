// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"runtime"
	"sync"
	"time"

	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// One message is under way: while it is, questions gather and travel together in
// the next.
const (
	maxTogether = 64
	// A message is at most 1 MiB. What would not fit must not break the stream.
	maxQuestion = 64 << 10
	maxBytes    = 512 << 10
)

// run keeps a stream open for as long as the gate is, and opens another when
// it breaks. Questions that a broken stream leaves unanswered are refused.
func (g *Gate) run(ctx context.Context) {
	for ctx.Err() == nil {
		select { // a stream is opened for a question, not for its own sake
		case first := <-g.ask:
			g.stream(ctx, first)
		case <-ctx.Done():
		}
	}
	for {
		select {
		case w := <-g.ask:
			w.answer <- nil
		default:
			return
		}
	}
}

// flight is the questions of one stream that wait for their answers.
type flight struct {
	mu      sync.Mutex
	waiting map[uint64]*asked
	room    chan struct{}
}

func (g *Gate) stream(ctx context.Context, first *asked) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The asker's second counts from its question: a sidecar that accepts and
	// never answers must not hold the others either.
	opening := time.AfterFunc(g.deadline, cancel)
	s, err := g.client.Ask(ctx)
	opening.Stop()
	if err != nil {
		first.answer <- nil
		return
	}
	f := &flight{waiting: map[uint64]*asked{}, room: make(chan struct{}, 1)}
	var listener sync.WaitGroup
	listener.Go(func() {
		defer cancel()
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			g.skew.Store(m.GetAt() - g.now().UnixMilli())
			f.deliver(m)
		}
	})
	g.send(ctx, s, f, first)
	cancel()
	listener.Wait()
	f.abandon()
}

func (g *Gate) send(ctx context.Context, s pb.GateService_AskClient, f *flight, w *asked) {
	var id uint64
	for {
		batch := &pb.Questions{}
		// A place under way first, then all that wait: so they gather.
		if !f.enter(ctx, g.deadline) {
			w.answer <- nil
			return
		}
		runtime.Gosched() // who is ready to ask does so now, and shares the message
		bytes := 0
		for w != nil {
			if !w.gone.Load() {
				id++
				w.question.Id = id
				f.expect(id, w)
				batch.Questions = append(batch.Questions, w.question)
				bytes += w.size
			}
			w = nil
			if len(batch.Questions) < maxTogether && bytes < maxBytes {
				select {
				case w = <-g.ask:
				default:
				}
			}
		}
		if len(batch.Questions) == 0 {
			<-f.room
		} else if err := s.Send(batch); err != nil {
			return
		}
		select {
		case w = <-g.ask:
		case <-ctx.Done():
			return
		}
	}
}

// enter waits for a place under way. It reports false when the stream ended,
// or when no message came back for so long that it is to be given up.
func (f *flight) enter(ctx context.Context, patience time.Duration) bool {
	select {
	case f.room <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case f.room <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

func (f *flight) expect(id uint64, w *asked) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[id] = w
}

func (f *flight) deliver(m *pb.Answers) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range m.GetAnswers() {
		if w := f.waiting[a.GetId()]; w != nil {
			delete(f.waiting, a.GetId())
			w.answer <- a
		}
	}
	select {
	case <-f.room:
	default: // more messages than we sent: nothing of ours
	}
}

func (f *flight) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiting {
		w.answer <- nil
	}
	clear(f.waiting)
}
