// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/cosign"
)

// Trust returns what verifies a checkpoint against a policy. With an error it
// returns a head too when the log's own signature is good and only cosignatures
// are missing.
func Trust(p *cosign.Policy) func(text string) (*audit.Head, error) {
	return func(text string) (*audit.Head, error) {
		v, err := p.Verify([]byte(text))
		if v == nil {
			return nil, err
		}
		// The policy has opened the note: its text ends before the last blank line.
		c, perr := audit.ParseCheckpoint(text[:strings.LastIndex(text, "\n\n")+1])
		if perr != nil {
			return nil, perr
		}
		h := &audit.Head{Checkpoint: *c, Note: text, Enough: err == nil}
		for _, s := range v.Cosigned {
			if s.At.After(h.At) {
				h.At = s.At
			}
		}
		return h, err
	}
}

// Shelf is a sink that is read: what was put there once.
type Shelf interface {
	Get(ctx context.Context, name string) ([]byte, error)
	List(ctx context.Context, prefix string) ([]string, error)
}

// maxHeads is how many of a sink's checkpoints are looked at: the newest half,
// and as many evenly from before.
const maxHeads = 2000

// ReadShelf returns what a sink keeps of a log, and nil when that is nothing.
// It tells of checkpoints there whose signatures are not good.
func ReadShelf(ctx context.Context, from Shelf, name, origin string, trust func(string) (*audit.Head, error), tell func(audit.Finding)) (*Outside, error) {
	root := url.PathEscape(origin) + "/"
	names, err := from.List(ctx, root+"checkpoint/")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	slices.Sort(names)
	out := &Outside{}
	for _, n := range thinned(names) {
		text, err := from.Get(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		head, err := trust(string(text))
		if head == nil || head.Origin != origin {
			tell(audit.Finding{Kind: audit.BadHead, Index: -1, Where: name, Note: fmt.Sprintf("%s is not signed as the policy asks: %v", n, err)})
			continue
		}
		head.From = name
		out.Heads = append(out.Heads, *head)
	}
	if out.Top = largest(out.Heads); out.Top == nil {
		return out, nil
	}
	size := out.Top.Size
	out.Leaves = func(from2 int64, n int) []tlog.Hash { return shelfLeaves(ctx, from, root, size, from2, n) }
	return out, nil
}

func thinned(names []string) []string {
	if len(names) <= maxHeads {
		return names
	}
	old, fresh := names[:len(names)-maxHeads/2], names[len(names)-maxHeads/2:]
	var out []string
	for i := range maxHeads / 2 {
		out = append(out, old[i*len(old)/(maxHeads/2)])
	}
	return append(out, fresh...)
}

// shelfLeaves reads leaves out of the tiles of the log at a size. What is not
// there is zero, and leads to no root.
func shelfLeaves(ctx context.Context, from Shelf, root string, size, first int64, n int) []tlog.Hash {
	out := make([]tlog.Hash, n)
	for tile := first >> audit.TileHeight; tile<<audit.TileHeight < min(first+int64(n), size); tile++ {
		w := int(min(256, size-tile<<audit.TileHeight))
		data, err := from.Get(ctx, root+audit.TileID{N: tile}.Path(w))
		if err != nil {
			continue
		}
		for i := 0; i+tlog.HashSize <= min(len(data), w*tlog.HashSize); i += tlog.HashSize {
			if at := tile<<audit.TileHeight + int64(i/tlog.HashSize) - first; at >= 0 && at < int64(n) {
				copy(out[at][:], data[i:])
			}
		}
	}
	return out
}

// Join puts together what several keep of a log. The leaves are those of the
// one that has the largest checkpoint.
func Join(all ...*Outside) *Outside {
	out := &Outside{}
	for _, o := range all {
		if o == nil {
			continue
		}
		if o.Top != nil && (out.Top == nil || o.Top.Size > out.Top.Size) {
			out.Top, out.Leaves = o.Top, o.Leaves
		}
		out.Heads = append(out.Heads, o.Heads...)
	}
	return out
}

// Largest returns the head of most entries that is kept, signed by enough or not;
// nil when none is.
func (o *Outside) Largest() *audit.Head {
	if o == nil || len(o.Heads) == 0 {
		return nil
	}
	top := slices.MaxFunc(o.Heads, func(x, y audit.Head) int { return cmp.Compare(x.Size, y.Size) })
	return &top
}

// Proved reports whether the leaves lead to the head that is kept with them.
func (o *Outside) Proved() bool {
	if o == nil || o.Top == nil {
		return false
	}
	root, err := rootOf(o.Top.Size, func(from int64, n int) ([]tlog.Hash, error) { return o.Leaves(from, n), nil })
	return err == nil && root == o.Top.Root
}
