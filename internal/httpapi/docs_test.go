// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/medirecord/medirecord/internal/med"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil { //nolint:gosec // documentation is for everybody
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(got), string(want)); d != "" {
		t.Errorf("docs/%s is not what the code says; run with -update (-got +want)\n%s", name, d)
	}
}

func TestContractFile(t *testing.T) {
	t.Parallel()
	y, err := newHouse(t).ContractYAML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.yaml", append([]byte("# Made from the code by `go test ./internal/httpapi -update`. Do not edit.\n"), y...))
}

func TestProblemsFile(t *testing.T) {
	t.Parallel()
	page := ProblemsMarkdown()
	for _, k := range med.ErrorKinds {
		if !strings.Contains(page, "`"+k.Slug+"` | "+k.Title+" | "+k.Detail) {
			t.Errorf("%s is not documented", k.Slug)
		}
	}
	golden(t, "problems.md", []byte(page))
}

func TestContractIsServed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Version = mark })
	got := askAs(t, "", "GET", h.start(t)+"/openapi.json", nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Security   []map[string][]string
			Responses  map[string]struct{ Content map[string]any }
			Parameters []struct{ Name, In string }
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("got OpenAPI %q as %q", doc.OpenAPI, got.header.Get("Content-Type"))
	}
	if strings.Contains(got.body, mark) {
		t.Error("the product's version is public")
	}
	for _, path := range []string{"/patients/{id}", "/patients/{id}/audit"} {
		op := doc.Paths[path]["get"]
		if len(op.Security) != 1 || op.Security[0]["bearer"] == nil {
			t.Errorf("%s: no security", path)
		}
		for _, status := range []string{"401", "403", "404", "422", "429", "500", "503"} {
			if op.Responses[status].Content[problemType] == nil {
				t.Errorf("%s: %s is no problem", path, status)
			}
		}
	}
	if d := cmp.Diff(doc.Components.Schemas["PatientBody"].Required, []string{"id", "name", "ssn", "dob", "diagnosis", "practice_id"}); d != "" {
		t.Error("the six keys (-got +want)\n" + d)
	}
	if strings.Contains(got.body, "$schema") {
		t.Error("the contract has $schema properties")
	}
}

func TestDocsPageNeedsNobodyElse(t *testing.T) {
	t.Parallel()
	url := newHouse(t).start(t)
	got := askAs(t, "", "GET", url+"/docs", nil)
	if got.status != 200 || got.header.Get("Content-Type") != "text/html; charset=utf-8" || got.header.Get("Content-Security-Policy") != docsCSP {
		t.Fatalf("got %d %v", got.status, got.header)
	}
	inline := regexp.MustCompile(`(?i)<script(?:\s+defer|\s+src="[^"]*")*>\s*[^<\s]|<style|\sstyle=|\son\w+=|javascript:|https?://`)
	if at := inline.FindString(got.body); at != "" {
		t.Errorf("the page has %q", at)
	}
	refs := regexp.MustCompile(`(?:src|href|data-contract)="([^"]+)"`).FindAllStringSubmatch(got.body, -1)
	if len(refs) < 5 {
		t.Fatalf("the page refers to %v", refs)
	}
	for _, ref := range refs {
		if res := askAs(t, "", "GET", url+"/"+ref[1], nil); res.status != 200 || len(res.body) < 100 {
			t.Errorf("%s: got %d, %d bytes", ref[1], res.status, len(res.body))
		}
	}
	if !strings.Contains(got.body, `data-try=""`) {
		t.Error("outside dev the page lets people try requests")
	}
	dev := newHouse(t, func(c *Config) { c.Dev = true }).start(t)
	if got := askAs(t, "", "GET", dev+"/docs", nil); !strings.Contains(got.body, `data-try="get"`) {
		t.Error("in dev it does not")
	}
}

func TestAssetsAreSentAsTheyArePacked(t *testing.T) {
	t.Parallel()
	url := newHouse(t).start(t) + "/docs/swagger-ui.css"
	whole := askAs(t, "", "GET", url, nil, "Accept-Encoding", "identity")
	packed := askAs(t, "", "GET", url, nil, "Accept-Encoding", "br, gzip;q=0.5")
	if whole.header.Get("Content-Encoding") != "" || packed.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %v and %v", whole.header, packed.header)
	}
	z, err := gzip.NewReader(strings.NewReader(packed.body))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if string(unpacked) != whole.body || !strings.Contains(whole.body, ".swagger-ui") {
		t.Error("packed and whole are not the same")
	}
}

func TestTakesGzip(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "br, gzip": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=0.1": true, "gzip;q=1.0": true,
		"xgzip": false, "identity": false, "*": false,
	} {
		if got := takesGzip(accept); got != want {
			t.Errorf("%q: got %v", accept, got)
		}
	}
}
