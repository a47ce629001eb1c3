// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what one benchmark found.
type result struct {
	Name    string
	Command string
	Date    time.Time
	Machine machine
	figures []figure
	ratios  []figure
	notes   []string // sections of Markdown: tables, profiles

	what string
}

type figure struct {
	name, unit, what string
	value            float64
}

// figure notes a measured number.
func (r *result) figure(name string, value float64, unit, what string) {
	r.figures = append(r.figures, figure{name, unit, what, round(value)})
}

// ratio notes a ratio.
func (r *result) ratio(name string, value float64, what string) {
	r.ratios = append(r.ratios, figure{name, "", what, round(value)})
}

// spread notes a ratio by its median and range over the rounds.
func (r *result) spread(name string, values []float64, what string) {
	if len(values) == 0 {
		return
	}
	r.ratio(name, median(values), what+", median")
	r.ratio(name+"_low", slices.Min(values), "lowest round")
	r.ratio(name+"_high", slices.Max(values), "highest round")
}

func (r *result) note(format string, a ...any) { r.notes = append(r.notes, fmt.Sprintf(format, a...)) }

type jsonLine struct {
	Name    string             `json:"name"`
	Figures map[string]float64 `json:"figures"`
	Ratios  map[string]float64 `json:"ratios"`
}

func (r *result) line() jsonLine {
	l := jsonLine{r.Name, map[string]float64{}, map[string]float64{}}
	for _, f := range r.figures {
		l.Figures[f.name] = f.value
	}
	for _, f := range r.ratios {
		l.Ratios[f.name] = f.value
	}
	return l
}

// table prints the result for people.
func (r *result) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s: %s\n", r.Name, r.what)
	for _, f := range slices.Concat(r.figures, r.ratios) {
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", f.name, number(f.value), f.unit, f.what)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.notes {
		if _, err := fmt.Fprintf(out, "\n%s\n", n); err != nil {
			return err
		}
	}
	return nil
}

// markdown is the result's part of RESULTS.md.
func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n```\n%s\n```\n\n%s · %s\n\n", capital(r.what)+".", r.Command, r.Date.Format("2006-01-02 15:04Z"), r.Machine)
	b.WriteString("| | value | | |\n|---|---:|---|---|\n")
	for _, f := range r.figures {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, number(f.value), f.unit, f.what)
	}
	for _, f := range r.ratios {
		fmt.Fprintf(&b, "| **`%s`** | **%s** | ratio | %s |\n", f.name, number(f.value), f.what)
	}
	for _, n := range r.notes {
		b.WriteString("\n" + n + "\n")
	}
	return b.String()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// number prints a value with as many digits as it deserves.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == math.Trunc(a) && a < 1e15, a >= 100:
		return thousands(int64(math.Round(v)))
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

// round keeps six digits: more were never measured.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

func median[T cmp.Ordered](values []T) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

// quantile returns the q-th part of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}
