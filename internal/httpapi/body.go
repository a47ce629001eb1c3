// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const maxDepth = 32

// Reasons why JSON is refused before anybody reads it. They carry no value: the
// client reads them (unread).
var (
	errJSON      = errors.New("not one JSON value")
	errDepth     = errors.New("nested deeper than " + strconv.Itoa(maxDepth))
	errDuplicate = errors.New("a key given twice")
	errText      = errors.New("control or direction characters, or not UTF-8")
)

// checkJSON reports an error for JSON that two readers could read in two ways
// (a key given twice, bytes that are not UTF-8, half a surrogate pair, something
// after the value), that nests deeper than 32, or whose text is foul.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errText
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errJSON
	}
	if halved(data) {
		return errText
	}
	return nil
}

// halved reports whether JSON that reads has an escape of half a surrogate pair.
// The decoder would put another character in its place, and not say so.
func halved(data []byte) bool {
	unit := func(i int) rune {
		if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(data[i+2:i+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i < len(data); i++ {
		switch first := unit(i); {
		case data[i] != '\\':
		case !utf16.IsSurrogate(first):
			i++ // what is escaped may be a backslash
		case utf16.DecodeRune(first, unit(i+6)) == utf8.RuneError:
			return true
		default:
			i += 11
		}
	}
	return false
}

func checkValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	t, err := d.Token()
	if err != nil {
		return errJSON // the decoder's own words repeat what it read
	}
	switch t := t.(type) {
	case string:
		if foul(t) {
			return errText
		}
	case json.Delim:
		if t == '{' {
			return checkObject(d, depth)
		}
		return checkArray(d, depth)
	}
	return nil
}

func checkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		switch {
		case err != nil || !ok:
			return errJSON
		case foul(key):
			return errText
		case seen[key]:
			return errDuplicate
		}
		seen[key] = true
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	return end(d)
}

func checkArray(d *json.Decoder, depth int) error {
	for d.More() {
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	return end(d)
}

// end takes the closing bracket.
func end(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errJSON
	}
	return nil
}
