// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// clip is how much of each text and list may go out.
type clip struct{ text, list int }

// of returns the string as valid UTF-8 of at most so many bytes.
func (c *clip) of(s string, cut *bool) string {
	if len(s) > c.text {
		s, *cut = before(s, c.text), true
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > c.text { // what was no UTF-8 became longer
		s, *cut = before(s, c.text), true
	}
	return s
}

// before returns the beginning of s, n bytes at most, without half a rune.
func before(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func clipped[T ~string](c *clip, list []T, cut *bool) []string {
	if len(list) > c.list {
		list, *cut = list[:c.list], true
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = c.of(string(s), cut)
	}
	return out
}

// asciiJSON marshals v, with everything that is not printable ASCII as \u
// escapes: what a reader decodes is what was written, and what a terminal or a
// line-based tool sees on the way is harmless.
func asciiJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	if err := enc.Encode(v); err != nil {
		return []byte(`{"error":"the entry does not marshal"}`) // strings, numbers and lists do
	}
	return escaped(bytes.TrimSuffix(b.Bytes(), []byte("\n")), func(out []byte, r rune) []byte {
		if r > 0xffff {
			hi, lo := utf16.EncodeRune(r)
			return fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		}
		return fmt.Appendf(out, `\u%04x`, r)
	})
}

// escaped replaces every rune that is not printable ASCII. In a document that
// an encoder wrote without indentation, such runes stand inside texts only.
func escaped(b []byte, escape func(out []byte, r rune) []byte) []byte {
	plain := true
	for _, c := range b {
		plain = plain && c >= 0x20 && c < 0x7f
	}
	if plain {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/2)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r >= 0x20 && r < 0x7f {
			out = append(out, byte(r))
		} else {
			out = escape(out, r)
		}
		b = b[n:]
	}
	return out
}

// word returns s if it is one harmless word, and otherwise the substitute: for
// places that are read by rules, where an invented word must not pass for one
// of ours.
func word(s, otherwise string) string {
	if s == "" || len(s) > 64 {
		return otherwise
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' && c != ':' {
			return otherwise
		}
	}
	return s
}
