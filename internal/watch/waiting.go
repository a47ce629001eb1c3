// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"time"

	"github.com/medirecord/medirecord/internal/gate"
)

// minted is a context that waits for its entry.
type minted struct {
	gate.Mint
	life string
	done bool
}

// waiting is the contexts that the feed told of, in its order, until they are
// settled: entered, or flagged.
type waiting struct {
	line []*minted            // the oldest first; settled ones leave at its head
	open map[string][]*minted // by the call that they were minted for; not settled
	life string
	told uint64 // the highest number that the feed told of, in this life
}

func newWaiting() waiting { return waiting{open: map[string][]*minted{}} }

// add takes what the feed told of, each once.
func (w *waiting) add(life string, mints []gate.Mint) (fresh []gate.Mint) {
	if life != w.life {
		w.life, w.told = life, 0
	}
	for _, m := range mints {
		if m.Number <= w.told {
			continue // told again after the feed broke
		}
		w.told = m.Number
		c := &minted{Mint: m, life: life}
		w.line = append(w.line, c)
		w.open[m.Event] = append(w.open[m.Event], c)
		fresh = append(fresh, m)
	}
	return fresh
}

// entered settles the contexts that the entry is of: those of its call, for its
// person and its patient. A call that asked twice names only the second.
func (w *waiting) entered(e *seen) {
	call := e.call()
	for _, c := range w.open[call] {
		if c.Issuer == e.issuer && c.Subject == e.subject && c.Patient == e.patient {
			c.done = true
		}
	}
	w.tidy(call)
}

// settle settles one context.
func (w *waiting) settle(c *minted) {
	c.done = true
	w.tidy(c.Event)
}

func (w *waiting) tidy(call string) {
	left := w.open[call][:0]
	for _, c := range w.open[call] {
		if !c.done {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		delete(w.open, call)
	} else {
		w.open[call] = left
	}
}

// overdue returns contexts that were minted by then and are not settled, at
// most so many.
func (w *waiting) overdue(then time.Time, most int) (late []*minted) {
	for _, c := range w.line {
		if c.At.After(then) || len(late) == most {
			break // the line is in the order of their minting
		}
		if !c.done {
			late = append(late, c)
		}
	}
	return late
}

// settled drops the settled head of the line, and returns up to which number of
// its life all are. It reports false when nothing was.
func (w *waiting) settled() (through uint64, any bool) {
	n := 0
	for n < len(w.line) && w.line[n].done {
		if w.line[n].life == w.life {
			through, any = w.line[n].Number, true
		}
		n++
	}
	if n > 0 {
		w.line = append(w.line[:0:0], w.line[n:]...)
	}
	return through, any
}
