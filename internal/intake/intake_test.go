// SPDX-License-Identifier: Apache-2.0

package intake_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/intake"
	"github.com/medirecord/medirecord/internal/med"
)

// The real door fits.
var _ intake.Chart = (*chart.Service)(nil)

// shelf is a chart in memory that remembers what it took, and fails where the
// test says so.
type shelf struct {
	mu     sync.Mutex
	taken  map[string]chart.Bundle // by source id
	hashes map[[32]byte]bool
	calls  int
	// before is asked first, with the number of the call.
	before func(ctx context.Context, call int) error
}

func (s *shelf) Import(ctx context.Context, c med.Caller, practice med.PracticeID, in chart.Bundle) (chart.Imported, error) {
	s.mu.Lock()
	s.calls++
	call := s.calls
	s.mu.Unlock()
	if c.Service != "import" || practice != "north" {
		return chart.Imported{}, med.Forbidden.New("")
	}
	if s.before != nil {
		if err := s.before(ctx, call); err != nil {
			return chart.Imported{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken, s.hashes = map[string]chart.Bundle{}, map[[32]byte]bool{}
	}
	if s.hashes[in.Hash] {
		return chart.Imported{Skipped: true}, nil
	}
	s.hashes[in.Hash] = true
	s.taken[in.Patient.SourceID.Reveal()] = in
	return chart.Imported{Created: len(in.Records)}, nil
}

func options(s *shelf, paths ...string) intake.Options {
	return intake.Options{
		Paths: paths, Practice: "north", Caller: med.Caller{Service: "import"}, Chart: s,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

// Invented people. Their names must not be seen in any report or log.
func person(id string) string {
	return fmt.Sprintf(`{"resourceType":"Patient","id":%q,"name":[{"family":"Secretname","given":["Ann"]}],"birthDate":"1980-01-02","identifier":[{"system":"http://hl7.org/fhir/sid/us-ssn","value":"900-11-2222"}]}`, id)
}

func observation(id, subject string) string {
	return fmt.Sprintf(`{"resourceType":"Observation","id":%q,"status":"final","code":{"text":"Pulse"},"subject":{"reference":%q},"valueQuantity":{"value":71.0,"unit":"/min"}}`, id, subject)
}

func bundle(resources ...string) string {
	var entries []string
	for _, r := range resources {
		entries = append(entries, `{"resource":`+r+`}`)
	}
	return `{"resourceType":"Bundle","type":"collection","entry":[` + strings.Join(entries, ",") + `]}`
}

func whole(id string) string { return bundle(person(id), observation("o1", "Patient/"+id)) }

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	b := []byte(text)
	if strings.HasSuffix(name, ".gz") {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		b = out.Bytes()
	}
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// failures are file names, places and reasons, in order.
func failures(s intake.Summary) []string {
	out := []string{}
	for _, f := range s.Failed {
		f.File = filepath.Base(f.File)
		out = append(out, f.String())
	}
	return out
}

func run(t *testing.T, o intake.Options) intake.Summary {
	t.Helper()
	sum, err := intake.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestBundles(t *testing.T) {
	t.Parallel()
	t.Run("a directory is imported, below it too", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		write(t, dir, "a.json", whole("a"))
		write(t, dir, "deep/er/b.json.gz", whole("b"))
		sum := run(t, options(s, dir))
		if sum.Patients != 2 || sum.Resources != 4 || sum.Created != 2 || sum.Kinds[med.KindObservation] != 2 || !sum.OK() {
			t.Errorf("got %+v", sum)
		}
		if got := s.taken["a"]; got.Patient.SSN.Reveal() != "900-11-2222" || got.Records[0].Value.Quantity.Reveal() != "71.0 /min" {
			t.Error("patient or record is not what the file says")
		}
	})
	t.Run("what was imported is unchanged, however it is packed", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		plain, packed := write(t, dir, "a.json", whole("a")), write(t, dir, "a.json.gz", whole("a"))
		first, second := run(t, options(s, plain)), run(t, options(s, packed))
		if first.Patients != 1 || second.Patients != 0 || second.Unchanged != 1 || !second.OK() {
			t.Errorf("got %+v, then %+v", first, second)
		}
	})
	t.Run("a file named twice is imported once", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		if sum := run(t, options(s, write(t, dir, "a.json", whole("a")), dir)); s.calls != 1 || sum.Patients != 1 {
			t.Errorf("%d calls, %+v", s.calls, sum)
		}
	})
	t.Run("bad bundles are reported without values, the others go on", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		var log bytes.Buffer
		write(t, dir, "1-cut.json", whole("secretid")[:200])
		write(t, dir, "2-stranger.json", bundle(person("secretid"), observation("o", "Patient/secretother")))
		write(t, dir, "3-nobody.json", bundle(`{"resourceType":"Organization","id":"o"}`))
		write(t, dir, "4-batch.json", strings.Replace(whole("secretid"), "collection", "batch", 1))
		write(t, dir, "5-nogzip.json.gz", "")
		if err := os.WriteFile(filepath.Join(dir, "5-nogzip.json.gz"), []byte("Secretname"), 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "6-bomb.json.gz", whole("z")+strings.Repeat(" ", 20<<20))
		write(t, dir, "7-good.json", whole("good"))
		o := options(s, dir)
		o.Workers, o.Log = 1, slog.New(slog.NewTextHandler(&log, nil))
		sum := run(t, o)
		want := []string{
			"1-cut.json: entry 0: JSON ends too early",
			"2-stranger.json: entry 1: the resource is about another subject than the bundle's patient",
			"3-nobody.json: no patient",
			"4-batch.json: type is neither transaction nor collection",
			"5-nogzip.json.gz: reading: unpacking gzip: gzip: invalid header",
			"6-bomb.json.gz: gzip data unpacks to more than the allowed ratio",
		}
		if diff := cmp.Diff(want, failures(sum)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if sum.Patients != 1 || sum.OK() || len(s.taken) != 1 {
			t.Errorf("got %+v", sum)
		}
		var report bytes.Buffer
		if err := sum.Report(&report); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"Secret", "secret", "900-11"} {
			if strings.Contains(report.String(), secret) || strings.Contains(log.String(), secret) {
				t.Errorf("report or log tells %q", secret)
			}
		}
		if strings.Contains(log.String(), "json") {
			t.Error("the log names files")
		}
	})
	t.Run("other JSON is ignored in a directory and refused by name", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		write(t, dir, "a.json", whole("a"))
		write(t, dir, "README.md", "no")
		write(t, dir, "MANIFEST.json", `[{"x":1}]`)
		list := write(t, dir, "list.json", `{"resourceType":"List"}`)
		if sum := run(t, options(s, dir)); len(sum.Ignored) != 3 || !sum.OK() || sum.Patients != 1 {
			t.Errorf("got %+v", sum)
		}
		if sum := run(t, options(s, list)); len(sum.Ignored) != 0 || sum.OK() {
			t.Errorf("got %+v", sum)
		}
	})
	t.Run("symbolic links in a directory are not followed", func(t *testing.T) {
		t.Parallel()
		dir, other := t.TempDir(), t.TempDir()
		write(t, dir, "a.json", whole("a"))
		if err := os.Symlink(write(t, other, "b.json", whole("b")), filepath.Join(dir, "b.json")); err != nil {
			t.Fatal(err)
		}
		if sum := run(t, options(&shelf{}, dir)); sum.Patients != 1 {
			t.Errorf("got %+v", sum)
		}
	})
	t.Run("nothing to import is an error", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for _, path := range []string{dir, write(t, dir, "a.txt", "x")} {
			if _, err := intake.Run(t.Context(), options(&shelf{}, path)); med.KindOf(err) != med.Invalid {
				t.Errorf("got %v", err)
			}
		}
		if _, err := intake.Run(t.Context(), options(&shelf{}, filepath.Join(dir, "missing"))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNDJSON(t *testing.T) {
	t.Parallel()
	org := `{"resourceType":"Organization","id":"o"}`
	lines := func(s ...string) string { return strings.Join(s, "\n") + "\n" }
	t.Run("what belongs to nobody goes to each chart that refers to it", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		refer := func(raw, to string) string {
			return strings.TrimSuffix(raw, "}") + `,"performer":[{"reference":"` + to + `"}]}`
		}
		write(t, dir, "Observation.000.ndjson", lines(refer(observation("1", "Patient/a"), "Practitioner?identifier=urn:npi|7"), refer(observation("2", "Patient/b"), "Organization/o")))
		write(t, dir, "Patient.000.ndjson", lines(person("a"), person("b")))
		write(t, dir, "Practitioner.000.ndjson", lines(`{"resourceType":"Practitioner","id":"d","identifier":[{"system":"urn:npi","value":"7"}],"extension":[{"url":"urn:x","valueReference":{"reference":"Organization/o"}}]}`))
		write(t, dir, "Organization.000.ndjson", lines(org, `{"resourceType":"Organization","id":"nobodys"}`))
		sum := run(t, options(s, dir))
		if a, b := len(s.taken["a"].Records), len(s.taken["b"].Records); a != 3 || b != 2 || sum.Shared["Organization"] != 1 || len(sum.Shared) != 1 {
			t.Errorf("got %d and %d records, %+v", a, b, sum)
		}
		if again := run(t, options(s, dir)); again.Unchanged != 2 {
			t.Errorf("a second time: got %+v", again)
		}
	})
	t.Run("resources go to their patient, whatever their order", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		write(t, dir, "Observation.000.ndjson.gz", lines(observation("1", "Patient/a"), observation("2", "Patient/b"), observation("3", "Patient/a")))
		write(t, dir, "Patient.000.ndjson", lines(person("b"), person("a")))
		write(t, dir, "Organization.000.ndjson", lines(org))
		write(t, dir, "log.ndjson", "not for us")
		sum := run(t, options(s, dir))
		if len(s.taken["a"].Records) != 2 || len(s.taken["b"].Records) != 1 || !sum.OK() {
			t.Errorf("got %d and %d records, %+v", len(s.taken["a"].Records), len(s.taken["b"].Records), sum)
		}
		if sum.Shared["Organization"] != 1 || len(sum.Ignored) != 1 || sum.Resources != 5 {
			t.Errorf("got %+v", sum)
		}
		t.Run("and the same lines in another order are unchanged", func(t *testing.T) {
			write(t, dir, "Patient.000.ndjson", lines(person("a"), person("b")))
			write(t, dir, "Observation.000.ndjson.gz", lines(observation("3", "Patient/a"), observation("2", "Patient/b"), observation("1", "Patient/a")))
			if sum := run(t, options(s, dir)); sum.Unchanged != 2 || sum.Patients != 0 {
				t.Errorf("got %+v", sum)
			}
		})
	})
	t.Run("a bad line is named, a bad chart is refused, the others go on", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		write(t, dir, "Observation.ndjson", lines(
			observation("1", "Patient/a"), `{"resourceType":`, observation("2", "Patient?identifier=x|y"),
			strings.Replace(observation("3", "Patient/b"), "final", "great", 1), observation("4", "Patient/orphan")))
		write(t, dir, "Patient.ndjson", lines(person("a"), person("b")))
		o := options(s, dir)
		o.Workers = 1
		sum := run(t, o)
		want := []string{
			"Observation.ndjson: line 2: malformed JSON",
			"Observation.ndjson: line 3: the subject is a conditional reference",
			"Observation.ndjson: line 4: status is not one of the codes FHIR R4 requires",
			"Observation.ndjson: chart of line 5: no patient",
		}
		if diff := cmp.Diff(want, failures(sum)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if len(s.taken) != 1 || len(s.taken["a"].Records) != 1 {
			t.Errorf("took %d charts", len(s.taken))
		}
	})
	t.Run("a file that cannot be read to its end imports no chart of its set", func(t *testing.T) {
		t.Parallel()
		dir, s := t.TempDir(), &shelf{}
		path := write(t, dir, "Observation.ndjson.gz", lines(observation("1", "Patient/a")))
		packed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, packed[:len(packed)-4], 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "Patient.ndjson", lines(person("a")))
		if sum := run(t, options(s, dir)); s.calls != 0 || len(sum.Failed) != 1 {
			t.Errorf("%d calls, %+v", s.calls, sum)
		}
	})
	t.Run("a file full of bad lines does not fill the report", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, "Patient.ndjson", strings.Repeat("x\n", 5000)+person("a"))
		if sum := run(t, options(&shelf{}, dir)); len(sum.Failed) != 21 || sum.Patients != 1 {
			t.Errorf("%d failures, %d patients", len(sum.Failed), sum.Patients)
		}
	})
}

func TestUnavailableChart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 9 {
		write(t, dir, fmt.Sprintf("%d.json", i), whole(fmt.Sprintf("p%d", i)))
	}
	t.Run("is asked again, later each time", func(t *testing.T) {
		t.Parallel()
		var waits []time.Duration
		s := &shelf{before: func(_ context.Context, call int) error {
			switch call {
			case 1:
				return med.DatabaseUnavailable.New("")
			case 2:
				e := med.RateLimited.New("")
				e.RetryAfter = time.Minute
				return e
			case 3:
				return med.Unauthorized.New("").Coded("sidecar_unavailable")
			}
			return nil
		}}
		o := options(s, dir)
		o.Workers, o.Wait = 1, func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
		if sum := run(t, o); sum.Patients != 9 || !sum.OK() {
			t.Errorf("got %+v", sum)
		}
		if len(waits) != 3 || waits[0] < 250*time.Millisecond || waits[1] != time.Minute || waits[2] < time.Second {
			t.Errorf("waited %v", waits)
		}
	})
	t.Run("ends the import when it stays so", func(t *testing.T) {
		t.Parallel()
		s := &shelf{before: func(context.Context, int) error { return med.KeysUnavailable.New("") }}
		o := options(s, dir)
		o.Workers = 1
		sum, err := intake.Run(t.Context(), o)
		if med.KindOf(err) != med.KeysUnavailable || s.calls > 4*5 || len(sum.Failed) < 3 || !sum.Interrupted {
			t.Errorf("%d calls, %v, %+v", s.calls, err, sum)
		}
	})
	t.Run("that refuses the caller ends the import at once", func(t *testing.T) {
		t.Parallel()
		s := &shelf{before: func(context.Context, int) error { return med.Unauthorized.New("") }}
		o := options(s, dir)
		o.Workers = 1
		if _, err := intake.Run(t.Context(), o); med.KindOf(err) != med.Unauthorized || s.calls > 2 {
			t.Errorf("%d calls, %v", s.calls, err)
		}
	})
	t.Run("that refuses a bundle does not", func(t *testing.T) {
		t.Parallel()
		s := &shelf{before: func(_ context.Context, call int) error {
			switch call {
			case 2:
				return med.Forbidden.New("Patient record belongs to a different practice.")
			case 3:
				return errors.New("broken at row 7")
			}
			return nil
		}}
		sum := run(t, options(s, dir))
		if sum.Patients != 7 || len(sum.Failed) != 2 {
			t.Errorf("got %+v", sum)
		}
		for _, f := range sum.Failed {
			if strings.Contains(f.Reason, "row 7") {
				t.Error("the inside of an internal error came out")
			}
		}
	})
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 20 {
		write(t, dir, fmt.Sprintf("%02d.json", i), whole(fmt.Sprintf("p%d", i)))
	}
	t.Run("finishes the bundle in flight and reads no other", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &shelf{before: func(call context.Context, n int) error {
			if n == 3 {
				cancel()
			}
			return call.Err()
		}}
		o := options(s, dir)
		o.Workers = 1
		sum, err := intake.Run(ctx, o)
		if !errors.Is(err, context.Canceled) || !sum.Interrupted || sum.Patients < 3 || sum.Patients > 4 || len(sum.Failed) > 0 {
			t.Errorf("got %v, %+v", err, sum)
		}
	})
	t.Run("does not wait for ever for a chart that hangs", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &shelf{before: func(call context.Context, _ int) error {
			cancel()
			<-call.Done()
			return call.Err()
		}}
		o := options(s, dir)
		o.Workers, o.Grace = 1, time.Millisecond
		if sum, err := intake.Run(ctx, o); !errors.Is(err, context.Canceled) || sum.Patients != 0 || sum.OK() {
			t.Errorf("got %v, %+v", err, sum)
		}
	})
	t.Run("does not wait out a pause", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &shelf{before: func(context.Context, int) error {
			cancel()
			e := med.RateLimited.New("")
			e.RetryAfter = time.Hour
			return e
		}}
		o := options(s, dir)
		o.Wait = nil
		if sum, err := intake.Run(ctx, o); !errors.Is(err, context.Canceled) || sum.OK() {
			t.Errorf("got %v, %+v", err, sum)
		}
	})
}

func TestReport(t *testing.T) {
	t.Parallel()
	sum := intake.Summary{
		Patients: 2, Resources: 7, Created: 5, Kinds: map[med.Kind]int{med.KindOther: 1, med.KindCondition: 4}, Shared: map[string]int{"Organization": 3},
		Failed: []intake.Failure{{File: "a\x1b[2J\n.json", Reason: "no patient"}}, Interrupted: true, Elapsed: 1234 * time.Millisecond,
	}
	var out bytes.Buffer
	if err := sum.Report(&out); err != nil {
		t.Fatal(err)
	}
	want := `2 patients imported, 0 unchanged, 1 failed: 7 resources in 1.2s
Interrupted: the rest was not read. Run the same import again, what is done is skipped.
Records: 5 created, 0 updated, 0 unchanged
  condition     4
  other         1
Shared, not stored: 3 Organization
Failed: a?[2J?.json: no patient
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProgressIsPlainOffATerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.json", whole("a"))
	write(t, dir, "b.json", "{")
	var out bytes.Buffer
	o := options(&shelf{}, dir)
	at := time.Unix(0, 0)
	o.Progress, o.Workers, o.Now = &out, 1, func() time.Time { return at }
	run(t, o)
	if got := out.String(); got != "100%  1 patients, 2 resources, 1 failed\n" {
		t.Errorf("got %q", got)
	}
}

// TestSamples reads all of the shared sample data into memory and out of sight.
func TestSamples(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..", "shared", "data")
	if _, err := os.Stat(root); err != nil {
		t.Skip("the shared sample data is not here")
	}
	for _, tt := range []struct {
		dir                         string
		patients, resources, shared int
		failed                      int
	}{
		{"dev", 120, 43_816, 0, 0},
		{"bulk10", 13, 7_158, 56, 0}, // 171 copies of what charts refer to; 56 to which none does
		{"bulk1000", 1144, 1_979, 0, 0},
		{"aux", 0, 0, 0, 2}, // hospitals and practitioners: no patient, and told so
	} {
		t.Run(tt.dir, func(t *testing.T) {
			t.Parallel()
			s := &counting{}
			o := options(nil, filepath.Join(root, tt.dir))
			o.Chart = s
			sum := run(t, o)
			shared := 0
			for _, n := range sum.Shared {
				shared += n
			}
			if sum.Patients != tt.patients || sum.Resources != tt.resources || shared != tt.shared || len(sum.Failed) != tt.failed || sum.Warnings > 0 {
				t.Errorf("got %+v", sum)
			}
			if s.records != tt.resources-tt.patients {
				t.Errorf("the chart was given %d records", s.records)
			}
		})
	}
}

// counting is a chart that only counts: the samples need not be kept.
type counting struct {
	mu      sync.Mutex
	records int
}

func (c *counting) Import(_ context.Context, _ med.Caller, _ med.PracticeID, in chart.Bundle) (chart.Imported, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records += len(in.Records)
	return chart.Imported{Created: len(in.Records)}, nil
}
