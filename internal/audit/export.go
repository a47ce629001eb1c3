// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/mod/sumdb/tlog"
)

// ExportFormat names the form of an export: gzip of lines of JSON. The first is
// the ExportHeader; then comes a line for each place of the log from `from` to
// `to`, {"i","leaf","entry"} with the entry's columns as canonical texts, or
// {"i","leaf","id","month"} for an entry of a neighbouring month that was
// sealed in between; the last is {"end":true,"count"}. docs/verify.py reads the
// same.
const ExportFormat = "medirecord-audit-export/1"

// ExportHeader is the first line of an export.
type ExportHeader struct {
	Format     string   `json:"format"`
	Origin     string   `json:"origin"`
	Epoch      int32    `json:"epoch"`
	Month      string   `json:"month"`
	From       int64    `json:"from"`
	To         int64    `json:"to"`
	Size       int64    `json:"size"`       // of the checkpoint's tree
	Checkpoint string   `json:"checkpoint"` // the note
	Left       [][]byte `json:"left"`       // hashes of the fewest subtrees before from
	Right      [][]byte `json:"right"`      // and from to up to size
}

// ErrExport says that a file is no export, or has been cut off.
var ErrExport = errors.New("not a whole " + ExportFormat)

// ExportWriter writes an export. It holds one line at a time.
type ExportWriter struct {
	gz    *gzip.Writer
	buf   *bufio.Writer
	line  []byte
	count int64
}

// NewExport begins an export with its header.
func NewExport(w io.Writer, h ExportHeader) (*ExportWriter, error) {
	h.Format = ExportFormat
	if h.Left == nil {
		h.Left = [][]byte{} // an empty list, and not null
	}
	if h.Right == nil {
		h.Right = [][]byte{}
	}
	gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	e := &ExportWriter{gz: gz, buf: bufio.NewWriterSize(gz, 1<<18)}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	_, err = e.buf.Write(append(b, '\n'))
	return e, err
}

// Entry writes the entry at a place.
func (e *ExportWriter) Entry(i int64, leaf tlog.Hash, r *Record) error {
	e.begin(i, leaf)
	e.line = append(e.line, `,"entry":{`...)
	for n, text := range r.Texts() {
		if n > 0 {
			e.line = append(e.line, ',')
		}
		e.line = append(append(append(e.line, '"'), Columns[n]...), `":`...)
		if text == nil {
			e.line = append(e.line, `null`...)
			continue
		}
		e.line = appendJSON(e.line, *text)
	}
	return e.end("}}\n")
}

// Neighbour writes the place of an entry of another month.
func (e *ExportWriter) Neighbour(i int64, leaf tlog.Hash, id UUID, month string) error {
	e.begin(i, leaf)
	e.line = append(append(append(e.line, `,"id":"`...), id.String()...), `","month":`...)
	e.line = appendJSON(e.line, month)
	return e.end("}\n")
}

func (e *ExportWriter) begin(i int64, leaf tlog.Hash) {
	e.line = strconv.AppendInt(append(e.line[:0], `{"i":`...), i, 10)
	e.line = append(base64.StdEncoding.AppendEncode(append(e.line, `,"leaf":"`...), leaf[:]), '"')
}

func (e *ExportWriter) end(s string) error {
	e.count++
	_, err := e.buf.Write(append(e.line, s...))
	return err
}

// Close writes the end. An export without it is refused.
func (e *ExportWriter) Close() error {
	_, err := fmt.Fprintf(e.buf, "{\"end\":true,\"count\":%d}\n", e.count)
	return errors.Join(err, e.buf.Flush(), e.gz.Close())
}

// appendJSON appends a text as JSON. What is not UTF-8 never gets here: the
// database has none.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// exportLine is any line but the first.
type exportLine struct {
	I     *int64             `json:"i"`
	Leaf  []byte             `json:"leaf"`
	Entry map[string]*string `json:"entry"`
	ID    string             `json:"id"`
	Month *string            `json:"month"`
	End   bool               `json:"end"`
	Count int64              `json:"count"`
}

// place is a line that has been read.
type place struct {
	i     int64
	leaf  tlog.Hash
	row   *Row // nil for a neighbour's
	id    UUID
	month string
	end   bool
	count int64
	err   error
}

// parseLine reads a line. The way of our own writer is read quickly; any other
// way to write the same JSON is read too, as long as it can be read in one way only.
func parseLine(line []byte, buf []byte) (place, []byte) {
	if p, b, ok := quickLine(line, buf); ok {
		return p, b
	}
	var l exportLine
	if err := unambiguous(line, &l); err != nil {
		return place{err: errors.New("a line that is not of an export")}, buf
	}
	if l.End {
		return place{end: true, count: l.Count}, buf
	}
	if l.I == nil || len(l.Leaf) != tlog.HashSize || (l.Entry == nil) == (l.Month == nil) {
		return place{err: errors.New("a line without its place, its hash, or its entry")}, buf
	}
	p := place{i: *l.I, leaf: tlog.Hash(l.Leaf)}
	if l.Entry == nil {
		p.id, _ = ParseUUID(l.ID)
		p.month = *l.Month
		return p, buf
	}
	if id := l.Entry["event_id"]; id != nil {
		p.id, _ = ParseUUID(*id)
	}
	r, err := RecordOf(l.Entry)
	if err != nil {
		p.err = err
		return p, buf
	}
	var row Row
	row, buf = RowOf(r, buf)
	p.row = &row
	return p, buf
}

// unambiguous reads a line of JSON that every reader of JSON reads alike: one
// object, no name twice in it, and none that differs from ours in case only.
// What one reader shows an auditor is then what this one hashes.
func unambiguous(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if rest, err := io.ReadAll(d.Buffered()); err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return ErrExport
	}
	type open struct {
		names map[string]bool // nil in a list
		name  bool            // a name comes next
	}
	var in []open
	t := json.NewDecoder(bytes.NewReader(line))
	t.UseNumber()
	for {
		token, err := t.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(in) - 1
		switch name, text := token.(string); {
		case text && top >= 0 && in[top].names != nil && in[top].name:
			if in[top].names[name] || name != strings.ToLower(name) {
				return ErrExport
			}
			in[top].names[name], in[top].name = true, false
			continue
		case token == json.Delim('{'):
			in = append(in, open{map[string]bool{}, true})
			continue
		case token == json.Delim('['):
			in = append(in, open{})
			continue
		case token == json.Delim('}'), token == json.Delim(']'):
			in = in[:top]
		}
		if len(in) > 0 { // a value has ended
			in[len(in)-1].name = in[len(in)-1].names != nil
		}
	}
}

// quickLine reads an entry's line as Entry writes it: the columns in their
// order, no blanks, and hashes the texts as they stand there, which are the
// entry's canonical bytes.
func quickLine(line, buf []byte) (p place, _ []byte, ok bool) {
	q := quick{b: string(line)} // the record's texts are parts of it
	q.skip(`{"i":`)
	p.i = q.number()
	q.skip(`,"leaf":"`)
	if len(q.b) < 44 || q.bad {
		return p, buf, false
	}
	var leaf [33]byte
	if n, err := base64.StdEncoding.Decode(leaf[:], line[len(line)-len(q.b):][:44]); err != nil || n != tlog.HashSize {
		return p, buf, false
	}
	copy(p.leaf[:], leaf[:])
	q.b = q.b[44:]
	q.skip(`","entry":{`)
	var texts [22]*string
	values := make([]string, len(texts))
	buf = appendColumn(append(buf[:0], 0), leafTag)
	for n, name := range Columns {
		if n > 0 {
			q.skip(`,`)
		}
		q.skip(`"`)
		q.skip(name)
		q.skip(`":`)
		if s, null := q.text(); !null {
			values[n], texts[n] = s, &values[n]
		}
		if q.bad {
			return p, buf, false
		}
		buf = appendNullable(buf, texts[n])
	}
	q.skip(`}}`)
	if q.bad || len(q.b) > 0 {
		return p, buf, false
	}
	r := recordOf(&texts)
	if r == nil {
		return p, buf, false
	}
	row := Row{Hash: hashOf(buf), Record: r}
	if row.ID, ok = ParseUUID(r.ID); !ok {
		return p, buf, false
	}
	p.id, p.row = row.ID, &row
	return p, buf, true
}

// quick reads JSON as we write it, and is bad as soon as it is another's.
type quick struct {
	b   string
	bad bool
}

func (q *quick) skip(s string) {
	rest, ok := strings.CutPrefix(q.b, s)
	if !ok {
		q.bad = true
		return
	}
	q.b = rest
}

func (q *quick) number() (n int64) {
	i := 0
	for ; i < len(q.b) && i < 18 && q.b[i] >= '0' && q.b[i] <= '9'; i++ {
		n = n*10 + int64(q.b[i]-'0')
	}
	q.bad = q.bad || i == 0 || i > 1 && q.b[0] == '0'
	q.b = q.b[i:]
	return n
}

func (q *quick) text() (s string, null bool) {
	if rest, ok := strings.CutPrefix(q.b, "null"); ok {
		q.b = rest
		return "", true
	}
	q.skip(`"`)
	if q.bad {
		return "", false
	}
	for i := 0; i < len(q.b); i++ {
		switch c := q.b[i]; {
		case c == '"':
			s = q.b[:i]
			q.b = q.b[i+1:]
			q.bad = q.bad || !utf8.ValidString(s)
			return s, false
		case c == '\\':
			return q.escaped(i)
		case c < 0x20:
			q.bad = true
			return "", false
		}
	}
	q.bad = true
	return "", false
}

// escaped goes on at the first backslash. It knows the escapes that we write.
func (q *quick) escaped(i int) (string, bool) {
	end := strings.LastIndexByte(q.b, '"') // there is no more than that
	out := append(make([]byte, 0, max(end, i)), q.b[:i]...)
	for ; i < len(q.b); i++ {
		c := q.b[i]
		switch {
		case c == '"':
			q.b = q.b[i+1:]
			q.bad = q.bad || !utf8.Valid(out)
			return string(out), false
		case c == '\\' && i+1 < len(q.b) && (q.b[i+1] == '"' || q.b[i+1] == '\\'):
			i++
			out = append(out, q.b[i])
		case c == '\\' || c < 0x20: // another's JSON, or none
			q.bad = true
			return "", false
		default:
			out = append(out, c)
		}
	}
	q.bad = true
	return "", false
}
