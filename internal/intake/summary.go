// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/fhir"
	"github.com/medirecord/medirecord/internal/med"
)

// Summary is what became of an import. It holds no health data, but file names
// may name people: it is for the operator, not for the log.
type Summary struct {
	Patients  int // charts imported, those that were new and those that changed
	Unchanged int // charts imported before, nothing was written
	Resources int // of both, the patients themselves too
	Kinds     map[med.Kind]int
	// Records of the imported charts.
	Created, Updated, Kept int
	// Shared counts, by type, the NDJSON resources that belong to no patient and
	// to which no chart refers, or for which there was no room. They are not
	// stored.
	Shared      map[string]int
	Warnings    int
	Failed      []Failure
	Ignored     []string // in directories: files that are no bundles
	Interrupted bool
	Bytes       int64 // of the files
	Elapsed     time.Duration
}

// Failure is a chart that was not imported, or a line that belongs to none.
type Failure struct {
	File   string
	Place  fhir.Place // "" for the file as a whole
	Index  int
	Reason string // never a value of the source
}

func (f Failure) String() string {
	if f.Place == fhir.Entry || f.Place == fhir.Line {
		return fmt.Sprintf("%s: %s %d: %s", f.File, f.Place, f.Index, f.Reason)
	}
	return f.File + ": " + f.Reason
}

// OK says whether everything that was found was imported.
func (s *Summary) OK() bool { return len(s.Failed) == 0 && !s.Interrupted }

func newSummary(f files) Summary {
	return Summary{Kinds: map[med.Kind]int{}, Shared: map[string]int{}, Ignored: f.ignored, Bytes: f.bytes}
}

func (s *Summary) add(b *fhir.Bundle, done chart.Imported) {
	if done.Skipped {
		s.Unchanged++
	} else {
		s.Patients++
	}
	s.Resources += len(b.Records) + 1
	for _, r := range b.Records {
		s.Kinds[r.Kind]++
	}
	s.Created += done.Created
	s.Updated += done.Updated
	s.Kept += done.Unchanged
	s.Warnings += len(b.Warnings)
}

// listed is how many failures and ignored files a report names.
const listed = 50

// Report writes the summary for an operator to read.
func (s *Summary) Report(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d patients imported, %d unchanged, %d failed: %d resources in %s\n",
		s.Patients, s.Unchanged, len(s.Failed), s.Resources, s.Elapsed.Round(100*time.Millisecond))
	if s.Interrupted {
		b.WriteString("Interrupted: the rest was not read. Run the same import again, what is done is skipped.\n")
	}
	fmt.Fprintf(&b, "Records: %d created, %d updated, %d unchanged\n", s.Created, s.Updated, s.Kept)
	for _, k := range med.Kinds {
		if n := s.Kinds[k]; n > 0 {
			fmt.Fprintf(&b, "  %-14s%d\n", k, n)
		}
	}
	if s.Warnings > 0 {
		fmt.Fprintf(&b, "%d elements could not be mapped; their resources are kept whole\n", s.Warnings)
	}
	for _, typ := range slices.Sorted(maps.Keys(s.Shared)) {
		fmt.Fprintf(&b, "Shared, not stored: %d %s\n", s.Shared[typ], typ)
	}
	for i, name := range s.Ignored {
		if i == listed {
			fmt.Fprintf(&b, "Ignored: %d more\n", len(s.Ignored)-i)
			break
		}
		fmt.Fprintf(&b, "Ignored, no bundle: %s\n", printable(name))
	}
	for i, f := range s.Failed {
		if i == listed {
			fmt.Fprintf(&b, "Failed: %d more\n", len(s.Failed)-i)
			break
		}
		fmt.Fprintf(&b, "Failed: %s\n", printable(f.String()))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable keeps a file's name from steering the operator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7F && r < 0xA0 || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// failure says why a file was refused, without what the error of the operating
// system adds.
func failure(name string, err error) Failure {
	var refusal *fhir.Refusal
	var located *lineError
	switch {
	case errors.As(err, &located):
		f := failure(located.file, located.err)
		return Failure{File: f.File, Place: fhir.Line, Index: located.line, Reason: f.Reason}
	case errors.As(err, &refusal):
		return Failure{File: name, Place: refusal.Place, Index: refusal.Index, Reason: refusal.Reason}
	case errors.Is(err, fhir.ErrRatio):
		return Failure{File: name, Reason: fhir.ErrRatio.Error()}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return Failure{File: name, Reason: path.Op + ": " + path.Err.Error()}
	}
	return Failure{File: name, Reason: err.Error()}
}

// outside is what an error of the chart may say to the operator.
func outside(err error) string {
	var e *med.Error
	if !errors.As(err, &e) {
		return "internal error, see the log"
	}
	s := cmp.Or(e.Code, e.Kind.Slug) + ": " + cmp.Or(e.Detail, e.Kind.Detail)
	for _, f := range e.Fields {
		s += " " + f.Pointer + ": " + f.Reason
	}
	return s
}
