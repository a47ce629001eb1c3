// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/outbound"
)

// ClientConfig is what a Client works with.
type ClientConfig struct {
	Policy *Policy
	// Outbound says how far requests may go: dev, listed private ranges, roots.
	// Its limits of size and time are replaced by our own.
	Outbound outbound.Config
	// Attempt bounds one request; 0 means 5 s.
	Attempt time.Duration
	// Grace is how long, once the quorum is met, the answers that are under way
	// are waited for; 0 means 250 ms.
	Grace time.Duration
	// Refused is told at once of each contradiction that a witness sees, also
	// when the quorum is met without it; nil is told nothing. It must not block.
	Refused func(*Refusal)
	Now     func() time.Time
}

// maxAnswer is the largest answer of a witness that is read. A cosignature has
// about 150 bytes, one by ML-DSA about 3.4 kB.
const maxAnswer = 16 << 10

// Client asks the witnesses of a policy for their cosignatures. It asks each
// about one checkpoint at a time, and is safe for concurrent use.
type Client struct {
	policy  *Policy
	out     *outbound.Client
	grace   time.Duration
	refused func(*Refusal)
	now     func() time.Time
	asked   []*witness
	ctx     context.Context //nolint:containedctx // ends what Cosign left under way, in Close
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// NewClient returns a client for the witnesses of the policy that have a URL.
// It reports a quorum that those alone can never meet. The client must be
// closed.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Policy == nil || cfg.Now == nil {
		return nil, errors.New("a cosigning client needs a policy and a clock")
	}
	cfg.Outbound.MaxBody = maxAnswer
	cfg.Outbound.Timeout = positive(cfg.Attempt, 5*time.Second)
	c := &Client{
		policy: cfg.Policy, out: outbound.New(cfg.Outbound), grace: positive(cfg.Grace, 250*time.Millisecond),
		refused: cfg.Refused, now: cfg.Now,
	}
	for i, w := range cfg.Policy.witnesses {
		c.asked = append(c.asked, &witness{
			Witness: w, turn: make(chan struct{}, 1), known: map[string]int64{}, shown: map[string]int64{}, newest: map[string]int64{}, stats: Stats{Witness: w.Name, URL: w.URL},
		})
		if w.URL == "" {
			c.asked[i] = nil
		}
	}
	if !cfg.Policy.quorum.met(func(i int) bool { return c.asked[i] != nil }) {
		return nil, errors.New("the policy's quorum cannot be met by the witnesses that have a URL: give each witness line its submission prefix")
	}
	//nolint:forbidigo // it outlives each call, and ends in Close
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

func positive(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Close ends what is under way and waits for it.
func (c *Client) Close() {
	c.stop()
	c.work.Wait()
	c.out.Close()
}

// Cosign asks all witnesses at once and returns the checkpoint with every
// cosignature it got once the policy's quorum is met; those that are under way
// by then have a moment more. Cosignatures that the checkpoint carries already
// are left out and asked for anew.
//
// prove returns the consistency proof from the tree of the old size to the
// checkpoint's; it is asked for old sizes other than zero and the checkpoint's
// own, never twice at the same time, and never after Cosign has returned.
//
// A witness that cannot be reached, is busy or fails is asked again, with
// pauses that grow to a few seconds, until ctx ends. A witness that knows another size than
// was thought is asked again with the right proof. One that sees this
// checkpoint contradict what it cosigned before is not asked again. Cosign
// fails with an error that says what each witness said, as soon as no quorum can be had any
// more; errors.Is tells ErrContradiction in it, and ErrSuperseded.
func (c *Client) Cosign(ctx context.Context, checkpoint []byte, prove func(old, size int64) ([]tlog.Hash, error)) ([]byte, error) {
	v, n, err := c.policy.open(checkpoint)
	if err != nil {
		return nil, fmt.Errorf("checkpoint to be cosigned: %w", err)
	}
	j := &job{v: v, prove: prove, done: make(chan struct{}), events: make(chan event, 4*len(c.asked)+1)}
	j.signed = c.policy.withoutCosignatures(n, v)
	run := &gathering{c: c, j: j, states: make([]state, len(c.asked)), errs: make([]error, len(c.asked)), lines: make([]string, len(c.asked))}
	for i, w := range c.asked {
		if w == nil {
			run.states[i], run.errs[i] = refused, errors.New("has no URL in the policy")
			continue
		}
		w.want(v.Origin, v.Size, c.now())
		c.work.Add(1)
		go func() {
			defer c.work.Done()
			w.work(ctx, c, j, i)
		}()
	}
	defer j.finish()
	return run.wait(ctx)
}

// withoutCosignatures returns the note with the log's own signatures only.
func (p *Policy) withoutCosignatures(n *note.Note, v *Verified) []byte {
	var b strings.Builder
	b.WriteString(n.Text + "\n")
	for _, s := range n.Sigs {
		for _, i := range p.keysOf(v.Origin) {
			if signedBy(s, p.logKeys[i]) {
				b.WriteString("— " + s.Name + " " + s.Base64 + "\n")
			}
		}
	}
	return []byte(b.String())
}

// Stats is what a witness has done for this client. It may be shown: it names
// nobody but the witness.
type Stats struct {
	Witness string
	URL     string
	// Size is the largest tree that it cosigned, and At when it last did.
	Size int64
	At   time.Time
	// Lag is for how long it has owed the cosignature of a checkpoint; 0 when
	// it has the newest. Behind is how many entries it is behind.
	Lag    time.Duration
	Behind int64
	// Cosigned, Failed and Contradicted count answers: cosignatures, failures of
	// any kind, and refusals of a contradiction, which are failures too.
	Cosigned, Failed, Contradicted uint64
	// Last is what went wrong last; "" after a cosignature.
	Last string
}

// Stats returns the figures of each witness that is asked, in the order of the
// policy.
func (c *Client) Stats() (out []Stats) {
	for _, w := range c.asked {
		if w != nil {
			out = append(out, w.figures(c.now()))
		}
	}
	return out
}
