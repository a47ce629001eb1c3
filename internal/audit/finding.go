// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Kind says what a verification found.
type Kind string

// Kinds of findings. All but the last two say that somebody has changed something.
const (
	Altered    Kind = "altered"    // the entry is there, and is not what was sealed
	Redated    Kind = "re-dated"   // the same, and its time is what was changed
	Reordered  Kind = "reordered"  // it stands where another was sealed
	Missing    Kind = "missing"    // it was sealed, and is not there
	Added      Kind = "added"      // it is there, and was never sealed
	BadTile    Kind = "tile"       // a tile is not the tree's
	BadBatch   Kind = "batch"      // the list of what was sealed together was changed
	BadMap     Kind = "map"        // the patient map does not follow from the entries
	BadHead    Kind = "checkpoint" // a head is not signed as the policy asks, or of another tree
	RolledBack Kind = "rolled back"
	Misfiled   Kind = "file"     // an export is not what an export says it is
	Gap        Kind = "gap"      // nothing covers these places: nothing can be said of them
	Unproved   Kind = "unproved" // what would prove it is not there
)

// Finding is one thing that is not as it was sealed, named by place and id.
type Finding struct {
	Kind  Kind   `json:"kind"`
	Epoch int32  `json:"epoch"`
	Index int64  `json:"index"`           // leaf index; -1 where there is none
	Last  int64  `json:"last,omitempty"`  // of a run of places
	ID    string `json:"event,omitempty"` // of the entry
	Note  string `json:"note,omitempty"`
	Where string `json:"where,omitempty"` // the file
}

// Tampering reports whether somebody must have changed something. A gap or a
// lack of proof alone does not say so.
func (f Finding) Tampering() bool { return f.Kind != Gap && f.Kind != Unproved }

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	switch {
	case f.Index >= 0 && f.Last > f.Index:
		fmt.Fprintf(&b, " epoch %d, entries %d to %d", f.Epoch, f.Index, f.Last)
	case f.Index >= 0:
		fmt.Fprintf(&b, " epoch %d, entry %d", f.Epoch, f.Index)
	case f.Epoch > 0:
		fmt.Fprintf(&b, " epoch %d", f.Epoch)
	}
	if f.ID != "" {
		b.WriteString(", id " + f.ID)
	}
	if f.Note != "" {
		b.WriteString(": " + f.Note)
	}
	if f.Where != "" {
		b.WriteString(" (" + f.Where + ")")
	}
	return b.String()
}

// UUID is an entry's id as 16 bytes.
type UUID [16]byte

const hexDigits = "0123456789abcdef"

func (u UUID) String() string {
	var b [36]byte
	at := 0
	for i, c := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b[at] = '-'
			at++
		}
		b[at], b[at+1] = hexDigits[c>>4], hexDigits[c&15]
		at += 2
	}
	return string(b[:])
}

// Milli is the time in a UUIDv7, in milliseconds since 1970.
func (u UUID) Milli() int64 {
	var ms int64
	for _, c := range u[:6] {
		ms = ms<<8 | int64(c)
	}
	return ms
}

// ParseUUID reads an id in its usual form.
func ParseUUID(s string) (u UUID, ok bool) {
	if len(s) != 36 {
		return u, false
	}
	at := 0
	for i := 0; i < 36; i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return u, false
			}
			continue
		}
		c := strings.IndexByte(hexDigits, s[i])
		if c < 0 {
			return u, false
		}
		u[at/2] = u[at/2]<<4 | byte(c)
		at++
	}
	return u, true
}

// Head is a checkpoint whose signatures have been found good.
type Head struct {
	Checkpoint
	Note   string
	From   string    // where it was found: the database, a file, a sink
	Enough bool      // as many witnesses have cosigned as the policy asks
	At     time.Time // of the latest cosignature; zero without one
}

// fits reports whether the tree and map at the head's size are these.
func (h *Head) fits(root tlog.Hash) bool { return h.Root == root }
