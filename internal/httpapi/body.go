// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const maxDepth = 32

// Reasons why JSON is refused before anybody reads it. They carry no value.
var (
	errJSON      = errors.New("not one JSON value")
	errDepth     = errors.New("nested too deeply")
	errDuplicate = errors.New("a key is given twice")
	errText      = errors.New("text with control or direction characters, or not UTF-8")
)

// checkJSON reports an error for JSON that two readers could read in two ways
// (a key given twice, bytes that are not UTF-8, something after the value), that
// nests deeper than 32, or whose text is foul.
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
	return nil
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
		return fmt.Errorf("unclosed: %w", errJSON)
	}
	return nil
}
