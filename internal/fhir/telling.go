// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// Ids stand in clear in the database, in URLs and in logs, so they must tell
// nothing. Some sources make them of a medical record number, a social security
// number or a name; such ids are not taken over.

// tellingFrom is the fewest characters that count: shorter ones meet by chance.
const tellingFrom = 5

// telling lists what of a Patient an id must not contain: identifiers, family
// names, birth date and telecoms, as bare lower-case letters and digits.
func telling(v val) []string {
	var out []string
	add := func(s string) {
		if s = bare(s); len(s) >= tellingFrom {
			out = append(out, s)
		}
	}
	for id := range v.get("identifier").items() {
		add(id.get("value").str())
	}
	for n := range v.get("name").items() {
		add(n.get("family").str())
	}
	for t := range v.get("telecom").items() {
		add(t.get("value").str())
	}
	add(v.get("birthDate").str())
	return out
}

// tells says whether an id contains any of it. A UUID does not, even where the
// source uses the same one as its record number: it is random.
func tells(id string, what []string) bool {
	if med.IsUUID(id) {
		return false
	}
	id = bare(id)
	for _, w := range what {
		if strings.Contains(id, w) {
			return true
		}
	}
	return false
}

func bare(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, s)
}
