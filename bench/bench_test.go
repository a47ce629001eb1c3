// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/pglocal"
)

func TestWithoutARunTheBenchmarksAreListed(t *testing.T) {
	t.Parallel()
	var out, progress bytes.Buffer
	if err := run(t.Context(), nil, &out, &progress); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"audited-reads", "import", "crud", "strict", "read-patient", "append-audit", "trail_reading", "decide"} {
		if !strings.Contains(out.String(), name+" ") {
			t.Errorf("%s is not in the list:\n%s", name, out.String())
		}
	}
}

func TestMistakesAreSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an unknown benchmark": {[]string{"-run", "reads"}, `no benchmark "reads"; there are: audited-reads, import`},
		"a stray word":         {[]string{"audited-reads"}, "named with -run"},
		"no connections":       {[]string{"-run", "decide", "-conns", "0"}, "-conns must be 1 to 256"},
		"no entries":           {[]string{"-run", "trail_reading", "-entries", "10"}, "-entries must be 1000"},
		"no users":             {[]string{"-run", "crud", "-users", "0"}, "-users must be 1 to 10000"},
		"shrinking sizes":      {[]string{"-run", "crud", "-patients", "1000,100"}, "growing numbers"},
		"no time":              {[]string{"-run", "decide", "-seconds", "0"}, "-seconds 1 to 3600"},
		"an unknown option":    {[]string{"-fast"}, "not defined: -fast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, progress bytes.Buffer
			err := run(t.Context(), c.args, &out, &progress)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("something was printed: %s", out.String())
			}
		})
	}
}

func sample() *result {
	r := &result{Name: "some", what: "some measurement", Command: "go run ./bench -run some", Date: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)}
	r.figure("rate", 12345.678, "1/s", "how fast")
	r.spread("m_over_b", []float64{1.5, 0.5, 1.25}, "us and them")
	r.note("a note")
	return r
}

func TestJSONIsOneLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := report(&out, sample(), true); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("got %q, want one line", out.String())
	}
	var got struct {
		Name            string
		Figures, Ratios map[string]float64
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "some" || got.Figures["rate"] != 12345.7 || got.Ratios["m_over_b"] != 1.25 || got.Ratios["m_over_b_low"] != 0.5 || got.Ratios["m_over_b_high"] != 1.5 {
		t.Errorf("got %+v", got)
	}
}

func TestPublishingReplacesOnePartAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	r := sample()
	old := "# Results\n\nby hand\n\n## some\n\n<!-- begin some -->\nold\n<!-- end some -->\n\nalso by hand\n"
	once := placed(old, r)
	for _, want := range []string{"# Results\n\nby hand\n", "<!-- end some -->\n\nalso by hand\n", "| `rate` | 12,346 | 1/s | how fast |", "go run ./bench -run some", "a note"} {
		if !strings.Contains(once, want) {
			t.Errorf("no %q in\n%s", want, once)
		}
	}
	if strings.Contains(once, "old\n") {
		t.Errorf("the old part is still there:\n%s", once)
	}
	if twice := placed(once, r); twice != once {
		t.Errorf("publishing again changed something:\n%s", twice)
	}
	if added := placed("# Results\n", r); !strings.HasPrefix(added, "# Results\n\n## some\n\n<!-- begin some -->\n") {
		t.Errorf("got\n%s", added)
	}
}

func TestNumbersHaveTheDigitsTheyDeserve(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 3: "3", 1234567: "1,234,567", 1234.5: "1,235", 99.94: "99.9", 12.3456: "12.3", 1.23456: "1.23", 0.0012345: "0.00123", -2000: "-2,000",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

func TestAProfileRanksFunctions(t *testing.T) {
	t.Parallel()
	script := "            a1 runtime.memmove\n            b2 github.com/x/y/chart.(*Service).Read[go.shape.int]\n            c3 main.main\n\n" +
		"            a1 runtime.memmove\n            c3 main.main\n\n" +
		"            b2 chart.(*Service).Read\n            b2 chart.(*Service).Read\n            c3 main.main\n\n"
	got := tops("API", []byte(script))
	for _, want := range []string{"API, 3 samples", " 66.7 % runtime.memmove ", "100.0 % main.main\n", "66.7 % chart.(*Service).Read\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := tops("API", nil); !strings.Contains(got, "No samples") {
		t.Errorf("got %s", got)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var of []time.Duration
	for i := range 100 {
		of = append(of, time.Duration(i))
	}
	if got := quantile(of, .99); got != 99 {
		t.Errorf("got %d, want 99", got)
	}
	if got := quantile(of, 1); got != 99 {
		t.Errorf("got %d, want 99", got)
	}
	if got := quantile(nil, .5); got != 0 {
		t.Errorf("got %d, want 0", got)
	}
}

// A small trail is filled, read and appended to like a large one.
func TestTrailReading(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute")
	}
	t.Parallel()
	var out, progress bytes.Buffer
	if err := run(t.Context(), []string{"-run", "trail_reading", "-entries", "3000", "-seconds", "1", "-rounds", "1", "-json"}, &out, &progress); err != nil {
		if errors.Is(err, pglocal.ErrNoPostgres) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err, progress.String())
	}
	var got jsonLine
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"accesses_300_ms_p99", "accesses_3k_ms_p99", "day_3k_ms_p99", "practice_3k_ms_p99", "practice_3k_pages", "append_with_per_second"} {
		if got.Figures[name] <= 0 {
			t.Errorf("%s was not measured: %v", name, got.Figures)
		}
	}
}
