// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// members are the members of one JSON object, by their exact names. Structs are
// not decoded into: encoding/json would take "ROLES" for "roles".
type members map[string]json.RawMessage

const maxDepth = 16

// parseObject returns the members of the one JSON object that data is. It
// refuses invalid UTF-8, a name that occurs twice at any depth (two readers
// would see two tokens), nesting beyond maxDepth and anything after the object.
func parseObject(data []byte) (members, error) {
	if !utf8.Valid(data) || !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return nil, refuse(ReasonMalformed)
	}
	var m members
	if json.Unmarshal(data, &m) != nil { // checks the whole grammar, and that nothing follows
		return nil, refuse(ReasonMalformed)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := uniqueNames(dec, maxDepth); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse(ReasonMalformed)
	}
	return m, nil
}

// uniqueNames reads one value. Names are compared as decoded, so that an
// escaped letter does not hide a second one.
func uniqueNames(dec *json.Decoder, depth int) error {
	if depth == 0 {
		return refuse(ReasonMalformed)
	}
	tok, err := dec.Token()
	if err != nil {
		return refuse(ReasonMalformed)
	}
	opening, nested := tok.(json.Delim)
	if !nested {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if opening == '{' {
			if err := uniqueName(dec, seen); err != nil {
				return err
			}
		}
		if err := uniqueNames(dec, depth-1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return refuse(ReasonMalformed)
	}
	return nil
}

func uniqueName(dec *json.Decoder, seen map[string]bool) error {
	tok, err := dec.Token()
	name, ok := tok.(string)
	if err != nil || !ok {
		return refuse(ReasonMalformed)
	}
	if seen[name] {
		return refuse(ReasonDuplicateClaim)
	}
	seen[name] = true
	return nil
}

const maxText = 255 // bytes of a subject, a session, a token id

// text returns a member that is a clean string, "" when it is absent. Present
// but empty, of another type, too long or unclean: bad_claim.
func (m members) text(name string) (string, error) {
	raw, present := m[name]
	if !present {
		return "", nil
	}
	s, ok := str(raw)
	if !ok || s == "" || len(s) > maxText || !clean(s) {
		return "", badClaim(name)
	}
	return s, nil
}

// texts returns a member that is a string or an array of strings.
func (m members) texts(name string) ([]string, error) {
	raw, present := m[name]
	if !present {
		return nil, nil
	}
	if s, ok := str(raw); ok {
		return []string{s}, nil
	}
	list, ok := strs(raw)
	if !ok {
		return nil, badClaim(name)
	}
	return list, nil
}

const lastSecond = 253402300799 // the end of the year 9999

// when returns a member that is a NumericDate (RFC 7519), the zero time when it
// is absent.
func (m members) when(name string) (time.Time, error) {
	raw, present := m[name]
	if !present {
		return time.Time{}, nil
	}
	// A string would be parsed too; only JSON numbers begin like this.
	if c := raw[0]; c < '0' || c > '9' {
		return time.Time{}, badClaim(name)
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f > lastSecond {
		return time.Time{}, badClaim(name)
	}
	return time.UnixMilli(int64(f * 1000)).UTC(), nil
}

func str(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	return s, json.Unmarshal(raw, &s) == nil
}

func strs(raw json.RawMessage) ([]string, bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return nil, false
	}
	out := make([]string, len(items))
	for i, item := range items {
		s, ok := str(item) // a null in []string would decode as ""
		if !ok {
			return nil, false
		}
		out[i] = s
	}
	return out, true
}

// clean reports whether s is fit to name somebody: valid UTF-8 without
// control, format and separator characters. U+FFFD is refused because every
// broken escape decodes to it, and two subjects must not become one.
func clean(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return false
		}
	}
	return true
}
