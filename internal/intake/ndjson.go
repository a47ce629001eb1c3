// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/fhir"
)

// The lines of one patient lie in all the files of a set, in no order. They are
// read once and sorted into a spool by patient; then each part of the spool
// holds whole charts.

// line is one resource of a patient and where it came from.
type line struct {
	file    int
	number  int
	patient string
	raw     []byte
}

// lineError says in which file and line an error is.
type lineError struct {
	file string
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// badLines is how many bad lines of one file are named one by one.
const badLines = 20

// feedSet sends the charts of a set. If one of its files cannot be read to the
// end, no chart of the set is whole for sure, and none is sent.
func (r *run) feedSet(ctx context.Context, s set, jobs chan<- job) (err error) {
	var bytes, expect int64
	for _, f := range s.files {
		bytes += f.size
		expect += f.size
		if strings.HasSuffix(f.path, ".gz") {
			expect += 19 * f.size // as the samples do
		}
	}
	sp := newSpool(r.TempDir, expect)
	defer func() { err = errors.Join(err, sp.close()) }()
	shared := newCommons()
	for i, f := range s.files {
		if err := r.sortFile(ctx, sp, shared, i, f); err != nil {
			if errors.Is(err, errStopped) {
				return err
			}
			j := job{name: f.path, bytes: bytes}
			r.refused(ctx, j, fmt.Errorf("no chart of this directory was imported: %w", err))
			return nil
		}
	}
	if err := r.feedParts(ctx, s, sp, shared, bytes, jobs); err != nil {
		return err
	}
	shared.left(r.share)
	return nil
}

// sortFile puts the lines of a file into the spool.
func (r *run) sortFile(ctx context.Context, sp *spool, shared *commons, index int, f file) error {
	in, err := openFile(f.path)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	reader, bad := fhir.NewNDJSONReader(in, r.Limits), 0
	defer func() { r.moreBadLines(f, bad) }()
	for {
		if ctx.Err() != nil {
			return errStopped
		}
		res, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var refusal *fhir.Refusal
		if err != nil && (!errors.As(err, &refusal) || errors.Is(err, fhir.ErrTooLarge)) {
			return err
		}
		patient, ok := "", false
		if err == nil {
			patient, ok, err = fhir.SubjectOf(res)
		}
		switch {
		case err != nil:
			if bad++; bad <= badLines {
				r.refused(ctx, job{name: f.path}, &lineError{file: f.path, line: lineOf(res, err), err: err})
			}
		case !ok:
			if !shared.add(index, res) {
				r.share(res.Type)
			}
		default:
			if err := sp.add(place(patient, len(sp.parts)), pack(line{index, res.Index, patient, res.Raw})); err != nil {
				return err
			}
		}
	}
}

// lineOf is the number of a line that was read, or that could not be.
func lineOf(res fhir.Resource, err error) int {
	var refusal *fhir.Refusal
	if errors.As(err, &refusal) && refusal.Place == fhir.Line {
		return refusal.Index
	}
	return res.Index
}

func (r *run) moreBadLines(f file, bad int) {
	if bad <= badLines {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Failed = append(r.sum.Failed, Failure{File: f.path, Reason: fmt.Sprintf("%d more lines were refused", bad-badLines)})
}

func (r *run) share(typ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.sum.Shared[typ]; !known && len(r.sum.Shared) >= 200 {
		typ = "of other types" // a file can invent types without end
	}
	r.sum.Shared[typ]++
}

// place is the part of the spool a patient's lines go to.
func place(patient string, parts int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(patient)) // never fails
	return int(h.Sum32() % uint32(parts))
}

func pack(l line) []byte {
	b := binary.AppendUvarint(nil, uint64(l.file))
	b = binary.AppendUvarint(b, uint64(l.number))
	b = binary.AppendUvarint(b, uint64(len(l.patient)))
	b = append(b, l.patient...)
	return append(b, l.raw...)
}

func unpack(b []byte) line {
	var n [3]uint64
	for i := range n {
		x, size := binary.Uvarint(b)
		n[i], b = x, b[size:]
	}
	return line{file: int(n[0]), number: int(n[1]), patient: string(b[:n[2]]), raw: b[n[2]:]}
}

// feedParts sends the charts of one part of the spool after the other.
func (r *run) feedParts(ctx context.Context, s set, sp *spool, shared *commons, size int64, jobs chan<- job) error {
	var total int64
	for _, p := range sp.parts {
		total += p.bytes
	}
	if total == 0 { // nobody's resources only
		r.mu.Lock()
		r.progress.add(size, r.sum)
		r.mu.Unlock()
	}
	for i := range sp.parts {
		items, err := sp.items(i)
		if err != nil {
			return err
		}
		for _, lines := range charts(items) {
			lines, share := shared.with(lines), int64(0)
			for _, l := range lines {
				share += int64(len(l.raw))
			}
			j := r.chartJob(s, lines)
			j.bytes = int64(float64(size) * float64(share) / float64(total))
			if err := send(ctx, jobs, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// charts puts the lines of each patient together, in the order of their files.
func charts(items [][]byte) [][]line {
	index := map[string]int{}
	var out [][]line
	for _, item := range items {
		l := unpack(item)
		i, ok := index[l.patient]
		if !ok {
			i = len(out)
			index[l.patient] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], l)
	}
	return out
}

// chartJob names a chart by its first line: a patient's id is not for reports.
func (r *run) chartJob(s set, lines []line) job {
	first := lines[0]
	name := fmt.Sprintf("%s: chart of line %d", s.files[first.file].path, first.number)
	return job{name: name, read: func() (*fhir.Bundle, [32]byte, error) {
		g := fhir.NewGatherer(r.Limits)
		for _, l := range lines {
			if err := g.AddLine(string(l.raw), l.number); err != nil {
				return nil, [32]byte{}, &lineError{file: s.files[l.file].path, line: l.number, err: err}
			}
		}
		b, err := g.Bundle()
		return b, hashOf(lines), err
	}}
}

// hashOf is the hash of a chart's lines in any order, as an export may write
// the same lines in another one.
func hashOf(lines []line) [32]byte {
	sums := make([][]byte, len(lines))
	for i, l := range lines {
		sum := sha256.Sum256(l.raw)
		sums[i] = sum[:]
	}
	slices.SortFunc(sums, bytes.Compare)
	return sha256.Sum256(bytes.Join(sums, nil))
}
