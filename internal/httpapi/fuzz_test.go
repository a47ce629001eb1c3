// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// FuzzDecode reads requests, bodies above all, as every route does, up to the door: none ends in
// a fault, each refusal is a problem, and none repeats what was sent.
func FuzzDecode(f *testing.F) {
	h := newHouse(f)
	h.auth.callers["clinician"] = med.Caller{Issuer: "iss", Subject: "dr-1", Roles: []med.Role{med.RoleClinician}, Practice: "practice-1", ExpiresAt: time.Now().Add(time.Hour)}
	routes := h.router.engine.Routes()
	for _, body := range []string{
		"", "{}", "[]", "null", `{"a":1,"a":2}`, `{"recipient":{"name":"x"},"basis":"research","description":"x","disclosed_on":"2026-03-01"}`,
		`{"id":"` + mark + `"}`, `{"` + mark + `":1}`, strings.Repeat("[", 40), "{\"description\":\"\xff\"}", `{"description":"\u0000"}`, `{"description":"\ud800"}`,
		`{"recipient":null,"period":{"first":1e99}}`, `{"limit":1e400}`, "{} {}",
	} {
		f.Add(uint8(0), "p-001", "limit=1", "application/json", []byte(body))
		f.Add(uint8(1), mark+"%2f..", mark+"=1&limit=-1", "", []byte(body))
		f.Add(uint8(2), "%zz", "limit=1;"+mark, "application/merge-patch+json", []byte(body))
	}
	f.Fuzz(func(t *testing.T, which uint8, id, query, kind string, body []byte) {
		route := routes[int(which)%len(routes)]
		target := &url.URL{Path: strings.ReplaceAll(route.Path, ":id", id), RawQuery: query}
		r, err := http.NewRequestWithContext(t.Context(), route.Method, "http://localhost/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = target.Path, target.EscapedPath(), target.RawQuery
		r.Header.Set("Authorization", "Bearer clinician")
		r.Header.Set("Content-Type", kind)
		h.log.mu.Lock()
		h.log.b.Reset()
		h.log.mu.Unlock()
		before := h.chart.times()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if h.chart.times() != before {
			return // it reached the door; what this one's double finds there is not the question
		}
		if w.Code >= 500 {
			t.Fatalf("%s %s: %d %s", route.Method, r.URL, w.Code, w.Body)
		}
		if w.Code < 400 {
			return
		}
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || w.Header().Get("Content-Type") != problemType {
			t.Fatalf("%s %s: no problem: %d %v %s", route.Method, r.URL, w.Code, w.Header(), w.Body)
		}
		if strings.Contains(w.Body.String()+fmt.Sprint(w.Header()), mark) {
			t.Fatalf("repeated: %s %v", w.Body, w.Header())
		}
	})
}
