// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one thing the process needs, and whether it has it. Name and Detail
// are codes: lower-case words joined by underscores.
type Check struct {
	Name   string
	OK     bool
	Detail string
}

const readyWithin = 3 * time.Second

// Ops answers the operations listener: /healthz (the process answers), /readyz
// (it can serve), /metrics. None of them needs a caller, none holds PHI; the
// listener belongs on an address that only operations can reach.
func (s *Server) Ops() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		s.writeOps(r.Context(), w, http.StatusOK, map[string]bool{"alive": true})
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{id: s.cfg.NewID(), start: s.cfg.Now(), method: r.Method, route: "ops"}
		a := &answerWriter{ResponseWriter: w}
		defer s.shield(r.Context(), x, a)
		secure(a.Header(), x.id)
		if _, pattern := mux.Handler(r); pattern == "" {
			s.refuse(r.Context(), a, x, med.NotFound.New(""))
			return
		}
		r.Body = http.MaxBytesReader(a, r.Body, 0)
		mux.ServeHTTP(a, r)
	})
}

type readiness struct {
	Ready  bool       `json:"ready"`
	Checks []checkRow `json:"checks"`
}

type checkRow struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// readyz is 200 when every check holds and 503 otherwise, also when there are none.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
	defer cancel()
	checks := s.cfg.Ready(ctx)
	out := readiness{Ready: len(checks) > 0, Checks: make([]checkRow, 0, len(checks))}
	for _, c := range checks {
		out.Ready = out.Ready && c.OK
		out.Checks = append(out.Checks, checkRow{Name: word(c.Name), OK: c.OK, Detail: word(c.Detail)})
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	s.writeOps(ctx, w, status, out)
}

func (s *Server) writeOps(ctx context.Context, w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "an operations answer does not marshal")
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// word lets a code through, and nothing that could be an error's text.
func word(s string) string {
	if len(s) > 64 {
		return "unclear"
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return "unclear"
		}
	}
	return s
}
