// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"errors"
	"io"
	"strings"
)

// Request is what a bundle's entry asks a server to do.
type Request struct{ Method, URL string }

// Resource is one resource as a bundle's entry or an NDJSON line holds it.
type Resource struct {
	Index   int
	FullURL string
	Type    string
	ID      string
	Raw     []byte // the resource's bytes exactly as in the source
	Request Request
}

// BundleReader reads the entries of one FHIR R4 Bundle, holding one at a time.
type BundleReader struct {
	s      *scanner
	limits Limits
	state  bundleState
	err    error
	index  int
	seen   map[string]bool // names of the Bundle's own properties
	comma  bool            // a comma must come before the next property or entry
	kind   string          // Bundle.type
	typed  bool            // resourceType was there
	meta   labels
	doc    doc
	// The first entry without a request: the type, and with it whether that is
	// allowed, may come after the entries.
	bare int
}

type bundleState uint8

const (
	beforeBundle bundleState = iota
	inBundle
	inEntries
)

// NewBundleReader returns a reader of the bundle in r. Memory is bounded by the
// largest entry.
func NewBundleReader(r io.Reader, limits Limits) *BundleReader {
	return &BundleReader{s: newScanner(r), limits: limits.withDefaults(), seen: map[string]bool{}, bare: -1}
}

// Next returns the next entry, io.EOF after the last. It reports a Refusal that
// wraps ErrNotBundle for JSON of another sort, one that wraps ErrTooLarge when a
// limit is passed, another Refusal for anything malformed, and the error of the
// reader below. A bundle's type may come last, so entries are final only when
// Next has said io.EOF.
func (b *BundleReader) Next() (Resource, error) {
	e, err := b.next()
	if err != nil {
		return Resource{}, err
	}
	return Resource{
		Index: e.index, FullURL: e.fullURL, Type: e.typ, ID: e.id,
		Raw: []byte(e.res.raw()), Request: e.request,
	}, nil
}

// entry is a Resource that still hangs in the reader's tree.
type entry struct {
	place   Place
	index   int
	fullURL string
	typ, id string
	request Request
	res     val
}

func (b *BundleReader) next() (entry, error) {
	if b.err != nil {
		return entry{}, b.err
	}
	e, err := b.advance()
	if err != nil {
		b.err = at(err, Whole, 0)
		return entry{}, b.err
	}
	return e, nil
}

func (b *BundleReader) advance() (entry, error) {
	for {
		switch b.state {
		case beforeBundle:
			if err := b.open(); err != nil {
				return entry{}, err
			}
		case inBundle:
			if err := b.property(); err != nil {
				return entry{}, err
			}
		case inEntries:
			more, err := b.item(']')
			if err != nil {
				return entry{}, at(err, Entry, b.index)
			}
			if more {
				e, err := b.entry()
				return e, at(err, Entry, b.index-1)
			}
			b.state, b.comma = inBundle, true
		}
	}
}

func (b *BundleReader) open() error {
	c, err := b.s.need()
	if err != nil {
		return err
	}
	// Editors on Windows begin a file with a byte order mark.
	if c == 0xEF {
		for _, mark := range []byte("\xEF\xBB\xBF") {
			if err := b.s.take(mark); err != nil {
				return err
			}
		}
		if c, err = b.s.need(); err != nil {
			return err
		}
	}
	if c != '{' {
		return &Refusal{Reason: "the JSON is not an object", cause: ErrNotBundle}
	}
	b.s.pos++
	b.state = inBundle
	return nil
}

// item takes the comma before an item, or the closing bracket after the last.
func (b *BundleReader) item(closing byte) (more bool, err error) {
	c, err := b.s.need()
	if err != nil {
		return false, err
	}
	if c == closing {
		b.s.pos++
		return false, nil
	}
	if b.comma {
		if err := b.s.take(','); err != nil {
			return false, err
		}
	}
	b.comma = true
	return true, nil
}

func (b *BundleReader) property() error {
	more, err := b.item('}')
	if err != nil {
		return err
	}
	if !more {
		return b.close()
	}
	name, err := b.name()
	if err != nil {
		return err
	}
	if err := b.s.take(':'); err != nil {
		return err
	}
	if name == "entry" {
		b.state, b.comma = inEntries, false
		return b.s.take('[')
	}
	v, err := b.value()
	if err != nil {
		return err
	}
	return b.note(name, v)
}

func (b *BundleReader) name() (string, error) {
	switch c, err := b.s.need(); {
	case err != nil:
		return "", err
	case c != '"':
		return "", refuse("malformed JSON")
	}
	v, err := b.value()
	if err != nil {
		return "", err
	}
	name := v.str()
	if v.node().escaped {
		return "", refuse("property name written with escapes")
	}
	if b.seen[name] {
		return "", refuse("duplicate property")
	}
	// A Bundle has a dozen properties; what has hundreds is not one.
	if len(b.seen) > 100 {
		return "", refuse("too many properties")
	}
	b.seen[name] = true
	return name, nil
}

func (b *BundleReader) value() (val, error) {
	text, err := b.s.value(b.limits.Entry)
	if err != nil {
		return val{}, err
	}
	if cap(b.doc.nodes) > 1<<18 {
		b.doc.nodes = nil // one entry of a million values must not cost memory for the rest
	}
	return b.doc.parse(text, b.limits.Depth)
}

// note takes in a property of the Bundle itself.
func (b *BundleReader) note(name string, v val) error {
	switch name {
	case "resourceType":
		if v.str() != "Bundle" {
			return &Refusal{Reason: "resourceType is not Bundle", cause: ErrNotBundle}
		}
		b.typed = true
	case "type":
		b.kind = v.str()
		if b.kind != "transaction" && b.kind != "collection" {
			return refuse("type is neither transaction nor collection")
		}
	case "meta":
		b.meta = labelsOf(v)
		if b.meta.altered {
			return errAltered
		}
	}
	return nil
}

// close judges what only the end of the bundle can tell.
func (b *BundleReader) close() error {
	if !b.typed {
		return &Refusal{Reason: "resourceType is missing", cause: ErrNotBundle}
	}
	if b.kind == "" {
		return refuse("type is missing")
	}
	if b.kind == "transaction" && b.bare >= 0 {
		return &Refusal{Place: Entry, Index: b.bare, Reason: "a transaction's entry needs a request"}
	}
	switch _, err := b.s.peek(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return err
	}
	return refuse("more after the end of the bundle")
}

func (b *BundleReader) entry() (entry, error) {
	b.index++
	if b.index > b.limits.Entries {
		return entry{}, tooLarge("more entries than the limit")
	}
	v, err := b.value()
	if err != nil {
		return entry{}, err
	}
	if v.kind() != jsonObject {
		return entry{}, refuse("the entry is not an object")
	}
	e, err := identify(v.get("resource"))
	if err != nil {
		return entry{}, err
	}
	e.place, e.index, e.fullURL = Entry, b.index-1, v.get("fullUrl").str()
	if v.get("fullUrl").present() && e.fullURL == "" {
		return entry{}, refuse("fullUrl is not a string")
	}
	if !v.get("request").present() {
		if b.bare < 0 {
			b.bare = e.index
		}
		return e, nil
	}
	e.request = Request{Method: v.at("request", "method").str(), URL: v.at("request", "url").str()}
	return e, e.request.fits(e)
}

// identify reads what every resource must say of itself.
func identify(res val) (entry, error) {
	if res.kind() != jsonObject {
		return entry{}, refuse("no resource")
	}
	e := entry{res: res, typ: res.get("resourceType").str(), id: res.get("id").str()}
	if !typeName(e.typ) {
		return entry{}, refuse("resourceType is missing or not a resource type")
	}
	if res.get("id").present() && e.id == "" {
		return entry{}, refuse("id is not a string")
	}
	return e, nil
}

// typeName says whether s could name a resource type: so only such text gets
// into warnings and counts.
func typeName(s string) bool {
	if len(s) == 0 || len(s) > 40 || s[0] < 'A' || s[0] > 'Z' {
		return false
	}
	for i := range len(s) {
		if c := s[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}

// fits refuses what an import cannot mean: deleting, patching or reading, and a
// request for another resource than the entry holds.
func (r Request) fits(e entry) error {
	if r.Method != "POST" && r.Method != "PUT" {
		return refuse("request method is neither POST nor PUT")
	}
	target, _, _ := strings.Cut(r.URL, "?")
	if target == e.typ || r.Method == "PUT" && e.id != "" && target == e.typ+"/"+e.id {
		return nil
	}
	return refuse("request url does not fit the resource")
}
