// SPDX-License-Identifier: Apache-2.0

package children

import (
	"bytes"
	"io"
	"sync"
)

// maxLine is where a line without an end is cut, so that a child cannot make
// its supervisor hold all of its output.
const maxLine = 64 << 10

// lines writes whole lines with a name before each. What comes together is
// written together, in whole lines, so that those of several children do not
// mix.
type lines struct {
	to     io.Writer
	prefix []byte
	rest   []byte // begins with prefix when not empty
	whole  []byte // lines to write
}

func newLines(to io.Writer, name string) *lines {
	if to == nil {
		to = io.Discard
	}
	return &lines{to: to, prefix: []byte(name + " | ")}
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, whole := p, false
		if end := bytes.IndexByte(p, '\n'); end >= 0 {
			part, whole = p[:end], true
		}
		if room := maxLine - len(l.rest); len(part) > room {
			part, whole = part[:room], false
		}
		if len(l.rest) == 0 {
			l.rest = append(l.rest, l.prefix...)
		}
		l.rest = append(l.rest, part...)
		p = p[len(part):]
		if whole {
			p = p[1:]
		}
		if whole || len(l.rest) >= maxLine {
			l.end()
		}
	}
	l.write()
	return n, nil
}

// end takes the line as far as it is known.
func (l *lines) end() {
	if len(l.rest) > 0 {
		l.whole = append(append(l.whole, l.rest...), '\n')
		l.rest = l.rest[:0]
	}
}

// write writes what is whole. A supervisor whose own output is gone is no
// reason to block or end a child, so the error is dropped.
func (l *lines) write() {
	if len(l.whole) > 0 {
		_, _ = l.to.Write(l.whole)
		l.whole = l.whole[:0]
	}
}

// flush writes the line as far as it is known.
func (l *lines) flush() {
	l.end()
	l.write()
}

// Sync makes a writer safe for the output of several children.
func Sync(w io.Writer) io.Writer { return &syncWriter{w: w} }

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
