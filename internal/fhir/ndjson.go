// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"bytes"
	"errors"
	"io"
)

// NDJSONReader reads the resources of a Bulk Data file, one a line, holding one
// at a time.
type NDJSONReader struct {
	s      *scanner
	limits Limits
	line   int
	err    error
	doc    doc
}

// NewNDJSONReader returns a reader of the lines in r.
func NewNDJSONReader(r io.Reader, limits Limits) *NDJSONReader {
	return &NDJSONReader{s: newScanner(r), limits: limits.withDefaults()}
}

// Next returns the next resource, io.EOF after the last; blank lines are
// passed over. It reports a Refusal for a line that is no resource; the lines
// after it can still be read. A Refusal that wraps ErrTooLarge and errors of the
// reader below are final.
func (n *NDJSONReader) Next() (Resource, error) {
	e, err := n.next()
	if err != nil {
		return Resource{}, err
	}
	return Resource{Index: e.index, Type: e.typ, ID: e.id, Raw: []byte(e.res.raw())}, nil
}

func (n *NDJSONReader) next() (entry, error) {
	if n.err != nil {
		return entry{}, n.err
	}
	for {
		text, err := n.s.line(n.limits.Entry)
		if err != nil {
			n.err = at(err, Line, n.line+1)
			return entry{}, n.err
		}
		n.line++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		e, err := parseLine(&n.doc, string(text), n.limits)
		e.place, e.index = Line, n.line
		return e, at(err, Line, n.line)
	}
}

func parseLine(d *doc, text string, l Limits) (entry, error) {
	if cap(d.nodes) > 1<<18 {
		d.nodes = nil
	}
	v, err := d.parse(text, l.Depth)
	if err != nil {
		return entry{}, err
	}
	return identify(v)
}

// line cuts up to the next newline, at most limit bytes. io.EOF: no more lines.
func (s *scanner) line(limit int) ([]byte, error) {
	s.out = s.out[:0]
	for {
		piece := s.buf[s.pos:s.end]
		i := bytes.IndexByte(piece, '\n')
		if i >= 0 {
			piece = piece[:i]
		}
		if len(s.out)+len(piece) > limit {
			return nil, tooLarge("larger than the limit for one line")
		}
		s.out = append(s.out, piece...)
		if i >= 0 {
			s.pos += i + 1
			return s.out, nil
		}
		err := s.fill()
		if errors.Is(err, io.EOF) && len(s.out) > 0 {
			s.pos, s.end = 0, 0
			return s.out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
