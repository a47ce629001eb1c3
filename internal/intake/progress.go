// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress is how far an import is.
type progress struct {
	start                       time.Time
	total, done                 int64 // bytes of the files
	patients, resources, failed int
}

func (p *progress) add(bytes int64, s Summary) {
	p.done += bytes
	p.patients, p.resources, p.failed = s.Patients+s.Unchanged, s.Resources, len(s.Failed)
}

func (p progress) share() float64 {
	if p.total == 0 {
		return 1
	}
	return min(float64(p.done)/float64(p.total), 1)
}

// line says it in one line: how far, how many, how fast, how long still.
func (p progress) line(now time.Time) string {
	took := now.Sub(p.start)
	s := fmt.Sprintf("%3.0f%%  %d patients, %d resources", 100*p.share(), p.patients, p.resources)
	if p.failed > 0 {
		s += fmt.Sprintf(", %d failed", p.failed)
	}
	if took > 0 {
		s += fmt.Sprintf("  %.0f resources/s", float64(p.resources)/took.Seconds())
	}
	if x := p.share(); x > 0 && x < 1 {
		left := time.Duration(float64(took) * (1 - x) / x)
		s += "  " + left.Round(time.Second).String() + " left"
	}
	return s
}

// bar is the line with a bar before it.
func (p progress) bar(now time.Time) string {
	const width = 30
	full := int(p.share() * width)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "] " + p.line(now)
}

// showProgress writes the progress until the function it returns is called: as
// a bar that is drawn over on a terminal, as lines elsewhere.
func (r *run) showProgress() (stop func()) {
	if r.Progress == nil {
		return func() {}
	}
	every, draw := 5*time.Second, func(p progress) string { return p.line(r.Now()) + "\n" }
	end := ""
	if f, ok := r.Progress.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		every, draw = 200*time.Millisecond, func(p progress) string { return "\r\x1b[K" + p.bar(r.Now()) }
		end = "\n"
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.show(draw)
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		r.show(draw)
		_, _ = io.WriteString(r.Progress, end) // who cannot be shown progress is imported for all the same
	}
}

func (r *run) show(draw func(progress) string) {
	r.mu.Lock()
	p := r.progress
	r.mu.Unlock()
	_, _ = io.WriteString(r.Progress, draw(p)) // as above
}
