// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a head of the log (C2SP tlog-checkpoint), with the root of the
// patient map in its one extension line, "patients <base64>".
type Checkpoint struct {
	Origin   string
	Size     int64
	Root     tlog.Hash
	Patients tlog.Hash
}

const patientsLine = "patients "

var errCheckpoint = errors.New("not a checkpoint of an audit trail: want origin, size, root and the line of the patient map")

// Text is what is signed.
func (c *Checkpoint) Text() string {
	head := formats.Checkpoint{Origin: c.Origin, Size: uint64(c.Size), Hash: c.Root[:]} //nolint:gosec // never negative
	return string(head.Marshal()) + patientsLine + base64.StdEncoding.EncodeToString(c.Patients[:]) + "\n"
}

// ParseCheckpoint reads the text of a checkpoint, which must be exactly as Text
// writes it.
func ParseCheckpoint(text string) (*Checkpoint, error) {
	var head formats.Checkpoint
	rest, err := head.Unmarshal([]byte(text))
	if err != nil || head.Size > 1<<62 || len(head.Hash) != tlog.HashSize {
		return nil, errCheckpoint
	}
	c := &Checkpoint{Origin: head.Origin, Size: int64(head.Size), Root: tlog.Hash(head.Hash)} //nolint:gosec // checked
	line, ok := strings.CutPrefix(strings.TrimSuffix(string(rest), "\n"), patientsLine)
	b, err := base64.StdEncoding.DecodeString(line)
	if !ok || err != nil || len(b) != tlog.HashSize {
		return nil, errCheckpoint
	}
	c.Patients = tlog.Hash(b)
	if c.Text() != text {
		return nil, errCheckpoint
	}
	return c, nil
}

// Sign returns the checkpoint as a note, signed by each of the signers: while a
// key is being replaced, by the old and the new.
func (c *Checkpoint) Sign(signers ...note.Signer) (string, error) {
	for _, s := range signers {
		if s.Name() != c.Origin {
			return "", fmt.Errorf("the signing key is named %s and the log %s: a log signs with keys of its own name", s.Name(), c.Origin)
		}
	}
	b, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	return string(b), err
}

// OpenCheckpoint returns the checkpoint of a note that one of the verifiers
// finds signed.
func OpenCheckpoint(signed string, verifiers note.Verifiers) (*Checkpoint, error) {
	n, err := note.Open([]byte(signed), verifiers)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return ParseCheckpoint(n.Text)
}

// FormatProof returns a receipt that is verified without anybody's help (C2SP
// tlog-proof): the entry's place, its way to the root, and the checkpoint.
func FormatProof(index int64, inclusion []tlog.Hash, checkpoint string) string {
	p := proof.TLogProof{Index: uint64(index), Checkpoint: []byte(checkpoint)} //nolint:gosec // never negative
	for _, h := range inclusion {
		p.Hashes = append(p.Hashes, h)
	}
	return string(p.Marshal())
}

// ParseProof reads a receipt. Whether it proves anything, CheckProof says.
func ParseProof(text string) (index int64, inclusion []tlog.Hash, checkpoint string, err error) {
	var p proof.TLogProof
	if err := p.Unmarshal([]byte(text)); err != nil {
		return 0, nil, "", err
	}
	if p.Index > 1<<62 || len(p.Hashes) > 63 || len(p.ExtraData) > 0 {
		return 0, nil, "", errors.New("tlog proof: index or hashes out of range")
	}
	for _, h := range p.Hashes {
		inclusion = append(inclusion, h)
	}
	return int64(p.Index), inclusion, string(p.Checkpoint), nil //nolint:gosec // checked
}

// CheckProof reports an error unless the record is the entry at index in the
// log of the checkpoint, which the caller has verified.
func CheckProof(c *Checkpoint, index int64, inclusion []tlog.Hash, r *Record) error {
	if index < 0 || index >= c.Size {
		return fmt.Errorf("entry %d is not in a log of %d", index, c.Size)
	}
	return tlog.CheckRecord(inclusion, c.Size, c.Root, index, r.Hash())
}
