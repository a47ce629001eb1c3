// SPDX-License-Identifier: Apache-2.0

// Package cosign is the log's side of witnessing: it reads a policy that says
// whose signatures make a checkpoint good (c2sp.org/tlog-policy), verifies
// checkpoints against it, and asks witnesses for their cosignatures
// (c2sp.org/tlog-witness). It holds no key, signs nothing, and decides nothing
// about what a log contains: roots and proofs come from its caller.
package cosign

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/tlog"
)

// Limits of what is read. A checkpoint of ours has about 300 bytes, one with
// cosignatures by ML-DSA about 4 kB for each.
const (
	MaxCheckpoint = 64 << 10 // bytes of a checkpoint with its signatures
	MaxProof      = 63       // hashes of a consistency proof, by the specification
	// MaxSize is the largest tree. Above it the arithmetic of sumdb/tlog does
	// not end: its search for the power of two below 2⁶³ runs for ever.
	MaxSize = 1 << 62
)

// Checkpoint is the text of a signed checkpoint: what the log and its
// witnesses state. See c2sp.org/tlog-checkpoint.
type Checkpoint struct {
	Origin     string
	Size       int64
	Root       tlog.Hash
	Extensions []string // what follows the root, a line each
}

var errCheckpoint = errors.New("not a checkpoint: want lines of origin, size and root hash")

// ParseCheckpoint reads a checkpoint's text, without its signatures, and takes
// it in one form only: what it accepts, String gives back byte for byte.
func ParseCheckpoint(text string) (Checkpoint, error) {
	var raw log.Checkpoint
	rest, err := raw.Unmarshal([]byte(text))
	if err != nil || !utf8.ValidString(text) || len(raw.Hash) != tlog.HashSize || raw.Size > MaxSize {
		return Checkpoint{}, errCheckpoint
	}
	c := Checkpoint{Origin: raw.Origin, Size: int64(raw.Size), Root: tlog.Hash(raw.Hash)}
	if len(rest) > 0 {
		c.Extensions = strings.Split(strings.TrimSuffix(string(rest), "\n"), "\n")
	}
	// An empty extension line would let the signatures begin elsewhere.
	for _, e := range c.Extensions {
		if e == "" {
			return Checkpoint{}, errCheckpoint
		}
	}
	if c.String() != text {
		return Checkpoint{}, errCheckpoint
	}
	return c, nil
}

// String returns the checkpoint's text.
func (c Checkpoint) String() string {
	text := string(log.Checkpoint{Origin: c.Origin, Size: uint64(c.Size), Hash: c.Root[:]}.Marshal())
	for _, e := range c.Extensions {
		text += e + "\n"
	}
	return text
}

// Request is the body of an add-checkpoint request.
type Request struct {
	Old        int64 // the size that the witness is believed to know
	Proof      tlog.TreeProof
	Checkpoint []byte // with its signatures
}

// ErrRequest is a request that does not read.
var ErrRequest = errors.New("the body is not an add-checkpoint request: want a line `old <size>`, proof lines, an empty line and the signed checkpoint")

// Marshal returns the body.
func (r Request) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", r.Old)
	for _, h := range r.Proof {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(r.Checkpoint)
	return b.Bytes()
}

// ParseRequest reads the body of an add-checkpoint request, in one form only.
// It reports ErrRequest; the checkpoint itself it leaves unread.
func ParseRequest(body []byte) (Request, error) {
	head, checkpoint, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok || len(checkpoint) == 0 || len(checkpoint) > MaxCheckpoint {
		return Request{}, ErrRequest
	}
	first, lines, some := strings.Cut(string(head), "\n")
	digits, ok := strings.CutPrefix(first, "old ")
	if !ok {
		return Request{}, ErrRequest
	}
	old, err := ParseSize(digits)
	if err != nil {
		return Request{}, ErrRequest
	}
	r := Request{Old: old, Checkpoint: checkpoint}
	if !some {
		return r, nil
	}
	for line := range strings.SplitSeq(lines, "\n") {
		h, err := tlog.ParseHash(line)
		if err != nil || base64.StdEncoding.EncodeToString(h[:]) != line || len(r.Proof) == MaxProof {
			return Request{}, ErrRequest
		}
		r.Proof = append(r.Proof, h)
	}
	return r, nil
}

// ParseSize reads a tree's size: decimal digits without leading zeroes, up to
// MaxSize.
func ParseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > MaxSize || strconv.FormatInt(n, 10) != s {
		return 0, errors.New("not the size of a tree")
	}
	return n, nil
}
