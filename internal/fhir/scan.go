// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"errors"
	"fmt"
	"io"
)

// scanner cuts JSON values out of a stream. It finds where a value ends and no
// more; doc.parse judges what it cut.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int
	out      []byte
	read     int64 // bytes taken from r
}

func newScanner(r io.Reader) *scanner { return &scanner{r: r, buf: make([]byte, 64<<10)} }

// fill reads more when nothing is left; io.EOF is the end of the input.
func (s *scanner) fill() error {
	for range 100 {
		n, err := s.r.Read(s.buf)
		s.pos, s.end, s.read = 0, n, s.read+int64(n)
		switch {
		case n > 0:
			return nil // an error with data comes again with the next read
		case errors.Is(err, io.EOF):
			return io.EOF
		case err != nil:
			return fmt.Errorf("reading: %w", err)
		}
	}
	return fmt.Errorf("reading: %w", io.ErrNoProgress)
}

// peek returns the next byte that is not space, without taking it.
func (s *scanner) peek() (byte, error) {
	for {
		for ; s.pos < s.end; s.pos++ {
			switch c := s.buf[s.pos]; c {
			case ' ', '\n', '\t', '\r':
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// need is peek where the input must go on.
func (s *scanner) need() (byte, error) {
	c, err := s.peek()
	if errors.Is(err, io.EOF) {
		return 0, refuse("JSON ends too early")
	}
	return c, err
}

// take takes the byte that must come next.
func (s *scanner) take(want byte) error {
	c, err := s.need()
	if err != nil {
		return err
	}
	if c != want {
		return refuse("malformed JSON")
	}
	s.pos++
	return nil
}

// value cuts the next JSON value, at most limit bytes long.
func (s *scanner) value(limit int) (string, error) {
	c, err := s.need()
	if err != nil {
		return "", err
	}
	s.out = s.out[:0]
	cut := cutter{scalar: c != '{' && c != '[' && c != '"'}
	for {
		n, done := cut.feed(s.buf[s.pos:s.end])
		if len(s.out)+n > limit {
			return "", tooLarge("larger than the limit for one entry")
		}
		s.out = append(s.out, s.buf[s.pos:s.pos+n]...)
		s.pos += n
		if done {
			return string(s.out), nil
		}
		err := s.fill()
		if errors.Is(err, io.EOF) {
			return "", refuse("JSON ends too early")
		}
		if err != nil {
			return "", err
		}
	}
}

// cutter follows brackets and quotes through a value that comes in pieces.
type cutter struct {
	depth             int
	scalar            bool // a number, true, false or null: ends at a delimiter
	quoted, backslash bool
}

// feed returns how many bytes of b belong to the value, and whether it ended.
func (c *cutter) feed(b []byte) (n int, done bool) {
	for i := 0; i < len(b); i++ {
		ch := b[i]
		if c.quoted {
			switch {
			case c.backslash:
				c.backslash = false
			case ch == '\\':
				c.backslash = true
			case ch == '"':
				c.quoted = false
				if c.depth == 0 {
					return i + 1, true
				}
			}
			continue
		}
		switch ch {
		case '"':
			if c.scalar {
				return i, true
			}
			c.quoted = true
		case '{', '[':
			c.depth++
		case '}', ']':
			if c.scalar {
				return i, true
			}
			if c.depth--; c.depth <= 0 {
				return i + 1, true
			}
		case ',', ' ', '\n', '\t', '\r':
			if c.scalar {
				return i, true
			}
		}
	}
	return len(b), false
}
