// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// gathering collects what the witnesses say about one checkpoint.
type gathering struct {
	c      *Client
	j      *job
	states []state // by witness, as are errs and lines
	errs   []error
	lines  []string
}

// wait returns the cosigned checkpoint, or why there is none.
func (g *gathering) wait(ctx context.Context) ([]byte, error) {
	var grace <-chan time.Time
	for {
		switch {
		case g.met(cosigned) && !g.any(trying):
			return g.result(), nil
		case g.met(cosigned) && grace == nil:
			t := time.NewTimer(g.c.grace)
			defer t.Stop()
			grace = t.C
		case !g.met(trying, waiting, cosigned):
			return nil, g.failure(ErrQuorum)
		}
		select {
		case e := <-g.j.events:
			g.states[e.witness], g.lines[e.witness] = e.state, e.line
			if e.err != nil || e.state == cosigned {
				g.errs[e.witness] = e.err
			}
			continue
		case <-grace:
		case <-ctx.Done():
		case <-g.c.ctx.Done():
		}
		if g.met(cosigned) {
			return g.result(), nil
		}
		return nil, g.failure(errors.Join(ErrQuorum, ctx.Err()))
	}
}

// met reports whether the witnesses in one of the states make a quorum.
func (g *gathering) met(in ...state) bool {
	return g.c.policy.quorum.met(func(i int) bool {
		for _, s := range in {
			if g.states[i] == s {
				return true
			}
		}
		return false
	})
}

func (g *gathering) any(s state) bool {
	for _, x := range g.states {
		if x == s {
			return true
		}
	}
	return false
}

func (g *gathering) result() []byte {
	out := append([]byte(nil), g.j.signed...)
	for _, line := range g.lines {
		out = append(out, line...)
	}
	return out
}

func (g *gathering) failure(why error) error {
	f := &failure{why: why, v: g.j.v}
	for i, w := range g.c.policy.witnesses {
		switch {
		case g.states[i] == cosigned:
			f.said = append(f.said, "witness "+w.Name+" has cosigned")
		case g.errs[i] != nil:
			f.said = append(f.said, fmt.Sprintf("witness %s: %v", w.Name, g.errs[i]))
			f.causes = append(f.causes, g.errs[i])
		default:
			f.said = append(f.said, "witness "+w.Name+" has not answered")
		}
	}
	return f
}

// failure is a checkpoint without its quorum, and what each witness said.
type failure struct {
	why    error
	v      *Verified
	said   []string
	causes []error
}

func (f *failure) Error() string {
	return fmt.Sprintf("cosigning %d entries of %s: %s: %s", f.v.Size, f.v.Origin,
		strings.ReplaceAll(f.why.Error(), "\n", ": "), strings.Join(f.said, "; "))
}

// Unwrap returns the reason and what the witnesses said, for errors.Is.
func (f *failure) Unwrap() []error { return append([]error{f.why}, f.causes...) }
