// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// screenshots is the folder into which the test of the page puts what it saw.
const screenshots = "MEDIRECORD_SCREENSHOTS"

// browse opens the page in a real browser that reaches nobody but this machine,
// and returns the page as it is then, and what the browser had to say.
func browse(t *testing.T, url, picture string) (page, said string) {
	t.Helper()
	var chromium string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Skip("no browser: apt-get install chromium")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	args := []string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--hide-scrollbars",
		"--user-data-dir=" + t.TempDir(), "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--disable-background-networking", "--disable-component-update",
		"--window-size=1280,2200", "--virtual-time-budget=20000", "--enable-logging=stderr", "--v=0",
	}
	run := func(more ...string) (string, string) {
		var out, errs strings.Builder
		cmd := exec.CommandContext(ctx, chromium, append(append(args, more...), url)...) //nolint:gosec // a browser that we looked for
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, 5*time.Second
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", chromium, err, errs.String())
		}
		return out.String(), errs.String()
	}
	if folder := os.Getenv(screenshots); folder != "" {
		run("--screenshot=" + filepath.Join(folder, picture))
	}
	return run("--dump-dom")
}

// The page of the documentation shows the whole contract in a real browser
// without a network, under a policy that lets nothing in, and breaks none of its
// rules.
func TestDocsPageInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t)
	page, said := browse(t, url+"/docs", "docs.png")
	var doc struct {
		Paths map[string]map[string]struct{ Summary string }
	}
	if err := json.Unmarshal([]byte(askAs(t, "", "GET", url+"/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if !strings.Contains(page, html.EscapeString(op.Summary)) && !strings.Contains(page, op.Summary) {
				t.Errorf("the page does not show %s %s (%q)", method, path, op.Summary)
			}
		}
	}
	for _, line := range strings.Split(said, "\n") {
		if strings.Contains(line, "CONSOLE") {
			t.Error(line)
		}
	}
	if strings.Contains(page, `class="btn authorize`) || strings.Contains(page, "authorization__btn") {
		t.Error("the public page asks for a token")
	}
	open, said := browse(t, url+"/docs#/patients/read-patient", "docs-operation.png")
	if !strings.Contains(open, "break-glass-reason-required") || strings.Contains(said, "CONSOLE") {
		t.Errorf("the page does not open an operation: %s", said)
	}
	if strings.Contains(h.log.String(), `"status":4`) {
		t.Error("the page asked for what is not there: " + h.log.String())
	}
}
