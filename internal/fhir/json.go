// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"iter"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json matches struct fields without regard to case and lets the last
// of two equal keys win; both let a file say one thing to us and another to the
// next reader. So resources are read into this tree instead: exact names, no
// duplicates, no NUL, no broken UTF-8, and strings that share the source's
// memory.

type jsonKind uint8

const (
	jsonObject jsonKind = iota + 1
	jsonArray
	jsonString
	jsonNumber
	jsonTrue
	jsonFalse
	jsonNull
)

// node is one JSON value; its children follow it directly.
type node struct {
	keyStart, keyEnd int32 // name within its object, without quotes
	start, end       int32 // the value's bytes
	next             int32 // index of the node after this one and its children
	kind             jsonKind
	escaped          bool
}

// doc is one parsed JSON text.
type doc struct {
	src   string
	nodes []node
}

// parse checks the whole text and returns its root. It reports a Refusal
// without a place. The tree is valid until the next parse.
func (d *doc) parse(src string, maxDepth int) (val, error) {
	d.src, d.nodes = src, d.nodes[:0]
	if !utf8.ValidString(src) {
		return val{}, refuse("invalid UTF-8")
	}
	p := parser{d: d, maxDepth: maxDepth}
	p.space()
	if err := p.value(0, 0, 0); err != nil {
		return val{}, err
	}
	p.space()
	if p.pos != len(src) {
		return val{}, refuse("more after the end of the JSON value")
	}
	return val{d, 0}, nil
}

type parser struct {
	d        *doc
	pos      int
	maxDepth int
}

func (p *parser) space() {
	src := p.d.src
	for p.pos < len(src) {
		switch src[p.pos] {
		case ' ', '\n', '\t', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next returns the byte at the position, 0 at the end: NUL is legal nowhere.
func (p *parser) next() byte {
	if p.pos < len(p.d.src) {
		return p.d.src[p.pos]
	}
	return 0
}

func (p *parser) value(keyStart, keyEnd, depth int) error {
	i := len(p.d.nodes)
	p.d.nodes = append(p.d.nodes, node{keyStart: int32(keyStart), keyEnd: int32(keyEnd), start: int32(p.pos)})
	kind, escaped, err := p.body(depth)
	if err != nil {
		return err
	}
	n := &p.d.nodes[i]
	n.kind, n.escaped, n.end, n.next = kind, escaped, int32(p.pos), int32(len(p.d.nodes))
	return nil
}

func (p *parser) body(depth int) (jsonKind, bool, error) {
	switch c := p.next(); {
	case c == '{':
		return jsonObject, false, p.object(depth + 1)
	case c == '[':
		return jsonArray, false, p.array(depth + 1)
	case c == '"':
		escaped, err := p.str()
		return jsonString, escaped, err
	case c == '-' || c >= '0' && c <= '9':
		return jsonNumber, false, p.number()
	case c == 't':
		return jsonTrue, false, p.word("true")
	case c == 'f':
		return jsonFalse, false, p.word("false")
	case c == 'n':
		return jsonNull, false, p.word("null")
	}
	return 0, false, refuse("malformed JSON")
}

func (p *parser) word(w string) error {
	if !strings.HasPrefix(p.d.src[p.pos:], w) {
		return refuse("malformed JSON")
	}
	p.pos += len(w)
	return nil
}

func (p *parser) object(depth int) error {
	if depth > p.maxDepth {
		return tooLarge("JSON nested too deeply")
	}
	names := siblings{d: p.d}
	p.pos++
	p.space()
	if p.next() == '}' {
		p.pos++
		return nil
	}
	for {
		if p.next() != '"' {
			return refuse("malformed JSON")
		}
		start := p.pos + 1
		escaped, err := p.str()
		if err != nil {
			return err
		}
		// No FHIR element needs an escape in its name; one that has it wants to be
		// read differently by different readers.
		if escaped {
			return refuse("property name written with escapes")
		}
		end := p.pos - 1
		if !names.add(p.d.src[start:end], int32(len(p.d.nodes))) {
			return refuse("duplicate property")
		}
		p.space()
		if p.next() != ':' {
			return refuse("malformed JSON")
		}
		p.pos++
		p.space()
		if err := p.value(start, end, depth); err != nil {
			return err
		}
		if done, err := p.comma('}'); done || err != nil {
			return err
		}
	}
}

func (p *parser) array(depth int) error {
	if depth > p.maxDepth {
		return tooLarge("JSON nested too deeply")
	}
	p.pos++
	p.space()
	if p.next() == ']' {
		p.pos++
		return nil
	}
	for {
		if err := p.value(0, 0, depth); err != nil {
			return err
		}
		if done, err := p.comma(']'); done || err != nil {
			return err
		}
	}
}

// comma takes a comma and the space around it, or the closing bracket.
func (p *parser) comma(closing byte) (done bool, err error) {
	p.space()
	switch p.next() {
	case closing:
		p.pos++
		return true, nil
	case ',':
		p.pos++
		p.space()
		return false, nil
	}
	return false, refuse("malformed JSON")
}

func (p *parser) str() (escaped bool, err error) {
	src := p.d.src
	for i := p.pos + 1; i < len(src); {
		switch c := src[i]; {
		case c == '"':
			p.pos = i + 1
			return escaped, nil
		case c == '\\':
			escaped = true
			n, err := escape(src[i:])
			if err != nil {
				return false, err
			}
			i += n
		case c < 0x20:
			return false, refuse("raw control character in a string")
		default:
			i++
		}
	}
	return false, refuse("JSON ends within a string")
}

// escape returns the length of the escape sequence at the start of s.
func escape(s string) (int, error) {
	if len(s) < 2 {
		return 0, refuse("JSON ends within a string")
	}
	if s[1] != 'u' {
		if strings.IndexByte("\"\\/bfnrt", s[1]) < 0 {
			return 0, refuse("malformed JSON escape")
		}
		return 2, nil
	}
	r, ok := hex4(s)
	switch {
	case !ok:
		return 0, refuse("malformed JSON escape")
	case r == 0:
		return 0, refuse("NUL in a string")
	case !utf16.IsSurrogate(r):
		return 6, nil
	}
	if low, ok := hex4(s[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
		return 12, nil
	}
	return 0, refuse("half a surrogate pair in a string")
}

// hex4 reads a \uXXXX at the start of s.
func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s[2:6]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (p *parser) number() error {
	if p.next() == '-' {
		p.pos++
	}
	switch c := p.next(); {
	case c == '0':
		p.pos++
	case c >= '1' && c <= '9':
		p.digits()
	default:
		return refuse("malformed number")
	}
	if p.next() == '.' {
		p.pos++
		if !p.digits() {
			return refuse("malformed number")
		}
	}
	if c := p.next(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.next(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return refuse("malformed number")
		}
	}
	return nil
}

func (p *parser) digits() bool {
	start := p.pos
	for c := p.next(); c >= '0' && c <= '9'; c = p.next() {
		p.pos++
	}
	return p.pos > start
}

// siblings notices a name used twice in one object. Beyond a few it keeps a
// map, so that an object of a million names takes no square time.
type siblings struct {
	d     *doc
	few   [32]int32
	n     int
	names map[string]bool
}

// add notes the name, whose node will be i, and reports false if it was there.
func (s *siblings) add(name string, i int32) bool {
	if s.names != nil {
		if s.names[name] {
			return false
		}
		s.names[name] = true
		return true
	}
	for _, j := range s.few[:s.n] {
		if s.d.name(j) == name {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = i
		s.n++
		return true
	}
	s.names = map[string]bool{name: true}
	for _, j := range s.few {
		s.names[s.d.name(j)] = true
	}
	return true
}

func (d *doc) name(i int32) string { n := &d.nodes[i]; return d.src[n.keyStart:n.keyEnd] }

// val is a place in a doc. The zero val is absent, and everything asked of it
// is absent too, so that a path needs no checks on its way.
type val struct {
	d *doc
	i int32
}

func (v val) node() node {
	if v.d == nil {
		return node{}
	}
	return v.d.nodes[v.i]
}

func (v val) kind() jsonKind { return v.node().kind }

// present says that there is a value, and that it is not null.
func (v val) present() bool { k := v.kind(); return k != 0 && k != jsonNull }

// raw returns the value's bytes as they are in the source.
func (v val) raw() string {
	if v.d == nil {
		return ""
	}
	n := v.node()
	return v.d.src[n.start:n.end]
}

// get returns the property of an object; of an array, that of its first item.
func (v val) get(name string) val {
	if v.kind() == jsonArray {
		v = v.first()
	}
	if v.kind() != jsonObject {
		return val{}
	}
	for i, end := v.i+1, v.node().next; i < end; i = v.d.nodes[i].next {
		if v.d.name(i) == name {
			return val{v.d, i}
		}
	}
	return val{}
}

// at follows property names.
func (v val) at(path ...string) val {
	for _, p := range path {
		v = v.get(p)
	}
	return v
}

func (v val) first() val {
	for x := range v.items() {
		return x
	}
	return val{}
}

// items ranges over an array; anything else that is present is one item, as in
// FHIR an element may repeat or not by version of the profile.
func (v val) items() iter.Seq[val] {
	return func(yield func(val) bool) {
		if v.kind() != jsonArray {
			if v.present() {
				yield(v)
			}
			return
		}
		for i, end := v.i+1, v.node().next; i < end; i = v.d.nodes[i].next {
			if !yield(val{v.d, i}) {
				return
			}
		}
	}
}

// properties ranges over the names and values of an object.
func (v val) properties() iter.Seq2[string, val] {
	return func(yield func(string, val) bool) {
		if v.kind() != jsonObject {
			return
		}
		for i, end := v.i+1, v.node().next; i < end; i = v.d.nodes[i].next {
			if !yield(v.d.name(i), val{v.d, i}) {
				return
			}
		}
	}
}

// str returns a string's text, "" for anything else.
func (v val) str() string {
	n := v.node()
	if n.kind != jsonString {
		return ""
	}
	s := v.d.src[n.start+1 : n.end-1]
	if !n.escaped {
		return s
	}
	return unquote(s)
}

// scalar returns a string's text, or a number or boolean as written.
func (v val) scalar() string {
	switch v.kind() {
	case jsonString:
		return v.str()
	case jsonNumber, jsonTrue, jsonFalse:
		return v.raw()
	default:
		return ""
	}
}

// unquote undoes the escapes of a string that escape has checked.
func unquote(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b = append(b, s[i])
			i++
			continue
		}
		if s[i+1] != 'u' {
			b = append(b, plain[s[i+1]])
			i += 2
			continue
		}
		r, _ := hex4(s[i:])
		i += 6
		if utf16.IsSurrogate(r) {
			low, _ := hex4(s[i:])
			r = utf16.DecodeRune(r, low)
			i += 6
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

var plain = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
