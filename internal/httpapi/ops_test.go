// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func (h *house) ops(method, path string) reply {
	w := httptest.NewRecorder()
	h.Ops().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return reply{w.Code, w.Header(), w.Body.String()}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		checks []Check
		status int
		want   string
	}{
		"all hold": {
			[]Check{{Name: "database", OK: true}, {Name: "trail", OK: true}},
			200,
			`{"ready":true,"checks":[{"name":"database","ok":true},{"name":"trail","ok":true}]}`,
		},
		"one does not": {
			[]Check{{Name: "database", OK: true}, {Name: "trail", Detail: "append_failed"}},
			503,
			`{"ready":false,"checks":[{"name":"database","ok":true},{"name":"trail","ok":false,"detail":"append_failed"}]}`,
		},
		"nothing was checked": {nil, 503, `{"ready":false,"checks":[]}`},
		"an error's text is no detail": {
			[]Check{{Name: "Database!", Detail: "no row for Alice Smith"}},
			503,
			`{"ready":false,"checks":[{"name":"unclear","ok":false,"detail":"unclear"}]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(c *Config) {
				c.Ready = func(ctx context.Context) []Check {
					if _, ok := ctx.Deadline(); !ok {
						t.Error("the checks may take for ever")
					}
					return test.checks
				}
			})
			if got := h.ops("GET", "/readyz"); got.status != test.status || got.body != test.want {
				t.Errorf("got %d %s\nwant %d %s", got.status, got.body, test.status, test.want)
			}
		})
	}
}

func TestOps(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ask(t, "GET", h.start(t)+"/patients/p-001")
	if got := h.ops("GET", "/healthz"); got.status != 200 || got.body != `{"alive":true}` {
		t.Errorf("healthz: %d %s", got.status, got.body)
	}
	for _, path := range []string{"/", "/patients/p-001", "/debug/pprof/", "/" + mark} {
		if got := h.ops("GET", path); got.status != 404 || strings.Contains(got.body, mark) {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := h.ops("POST", "/readyz"); got.status != 404 {
		t.Errorf("POST: %d", got.status)
	}
	text := h.ops("GET", "/metrics").body
	for _, want := range []string{
		`medirecord_http_request_duration_seconds_count{method="GET",route="/patients/:id",status="2xx"} 1`, `medirecord_build_info{version="test"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "p-001") {
		t.Error("the metrics name a patient")
	}
}

func TestAReadinessCheckThatPanics(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Ready = func(context.Context) []Check { panic("Alice Smith") } })
	got := h.ops("GET", "/readyz")
	if got.status != 500 || strings.Contains(got.body+h.log.String(), "Alice") {
		t.Errorf("got %d %s, log %s", got.status, got.body, h.log)
	}
}

func TestNewRefusesToBeHalfBuilt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	whole := h.cfg
	for name, drop := range map[string]func(*Config){
		"Auth": func(c *Config) { c.Auth = nil }, "Chart": func(c *Config) { c.Chart = nil }, "Log": func(c *Config) { c.Log = nil },
		"Now": func(c *Config) { c.Now = nil }, "Ready": func(c *Config) { c.Ready = nil },
		"the registry taken": func(*Config) {},
	} {
		c := whole
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
	c := whole
	c.Metrics, c.NewID = nil, nil
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/patients/p-001", nil))
	if id := w.Header().Get("X-Request-Id"); len(id) != 36 || id[14] != '7' {
		t.Errorf("request id %q", id)
	}
}

func TestTheLogLine(t *testing.T) {
	t.Parallel()
	at := time.Unix(0, 0)
	h := newHouse(t, func(c *Config) {
		c.Now = func() time.Time { at = at.Add(time.Millisecond); return at }
	})
	r := httptest.NewRequest(http.MethodGet, "/patients/p-001", nil)
	r.Header.Set("Authorization", "Bearer clinician")
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	h.ServeHTTP(httptest.NewRecorder(), r)
	want := `"level":"INFO","msg":"request","request":"` + requestID + `","method":"GET","route":"/patients/:id","status":200,"took":1000000,` +
		`"audit_event":"` + eventID + `","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}`
	if got := h.log.String(); !strings.HasSuffix(strings.TrimSpace(got), want) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %s\nwant … %s", got, want)
	}
}

// nobody takes an answer and keeps nothing of it.
type nobody struct{ h http.Header }

func (n *nobody) Header() http.Header         { return n.h }
func (n *nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n *nobody) WriteHeader(int)             {}

// BenchmarkReadPatient is what the room adds to a read: everything but the
// network, the authenticator and the chart.
func BenchmarkReadPatient(b *testing.B) {
	h := newHouse(b, func(c *Config) { c.NewID = nil })
	r := httptest.NewRequest(http.MethodGet, "/patients/p-001", nil)
	r.Header.Set("Authorization", "Bearer clinician")
	r.Header.Set("Accept", "*/*")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(&nobody{h: http.Header{}}, r)
		h.log.b.Reset()
		h.chart.asked = h.chart.asked[:0]
	}
}
