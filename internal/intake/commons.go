// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bytes"
	"encoding/json"
	"regexp"

	"github.com/medirecord/medirecord/internal/fhir"
)

// mostCommons bounds the memory for what belongs to no patient, in bytes.
const mostCommons = 32 << 20

// commons are the resources of a set that belong to no patient: organizations,
// practitioners, places. Each chart that refers to one keeps a copy, under the
// patient's own key, as charts from bundles do.
type commons struct {
	lines []line
	types []string
	kept  []bool
	names map[string]int // Type/id and Type?identifier=system|value to place in lines
	bytes int
}

func newCommons() *commons { return &commons{names: map[string]int{}} }

// add keeps the resource, and reports false when there is no room for it.
func (c *commons) add(file int, res fhir.Resource) bool {
	if c.bytes += len(res.Raw); c.bytes > mostCommons {
		return false
	}
	var named struct {
		Identifier []struct{ System, Value string } `json:"identifier"`
	}
	_ = json.Unmarshal(res.Raw, &named) // what has another form is referred to by its id only
	at := len(c.lines)
	c.lines = append(c.lines, line{file: file, number: res.Index, raw: bytes.Clone(res.Raw)})
	c.types, c.kept = append(c.types, res.Type), append(c.kept, false)
	c.names[res.Type+"/"+res.ID] = at
	for _, id := range named.Identifier {
		c.names[res.Type+"?identifier="+id.System+"|"+id.Value] = at
	}
	return true
}

var reference = regexp.MustCompile(`"reference"\s*:\s*"([^"\\]+)"`)

// with returns the chart's lines and those of the commons that they refer to,
// directly or through another.
func (c *commons) with(lines []line) []line {
	taken := map[int]bool{}
	for i := 0; i < len(lines); i++ {
		for _, m := range reference.FindAllSubmatch(lines[i].raw, -1) {
			at, known := c.names[string(m[1])]
			if !known || taken[at] {
				continue
			}
			taken[at], c.kept[at] = true, true
			lines = append(lines, c.lines[at])
		}
	}
	return lines
}

// left calls f with the type of each resource that no chart refers to.
func (c *commons) left(f func(typ string)) {
	for i, kept := range c.kept {
		if !kept {
			f(c.types[i])
		}
	}
}
