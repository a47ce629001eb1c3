// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

const (
	problemBase = "https://medirecord.example/errors/"
	problemType = "application/problem+json"
)

// problem is an RFC 9457 problem as it leaves. It says nothing that the client
// sent, and nothing of a cause.
type problem struct {
	Type     problemURI       `json:"type"`
	Title    string           `json:"title" example:"Unauthorized"`
	Status   int              `json:"status" example:"401"`
	Detail   string           `json:"detail" example:"Valid JWT required. Sidecar validation failed."`
	Instance string           `json:"instance" format:"uri" doc:"This occurrence: the request id as a URN. Quote it."`
	Code     string           `json:"code" pattern:"^[a-z][a-z0-9_]*$" doc:"The problem in one machine-readable word: its slug with underscores, or one that says more. docs/problems.md lists both." example:"unauthorized"`
	Category category         `json:"hipaa_category"`
	Errors   []med.FieldError `json:"errors,omitempty" doc:"Where the request is wrong and why. A pointer that begins with / points into the body; any other names a parameter or a header."`

	headers http.Header
}

// Error names the problem's code.
func (p *problem) Error() string { return p.Code }

// GetStatus, GetHeaders and ContentType tell Huma how to write the problem.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers that go with the problem.
func (p *problem) GetHeaders() http.Header { return p.headers }

// ContentType is the problem's own, whatever the client would rather have.
func (p *problem) ContentType(string) string { return problemType }

// problem makes of an error what the outside may know, and logs what it may not.
func (s *Server) problem(ctx context.Context, x *exchange, err error) *problem {
	var e *med.Error
	if !errors.As(err, &e) {
		e = med.Internal.Because(err)
	}
	p := problemOf(e, x.id)
	x.code = p.Code
	if e.Event != "" {
		x.event = e.Event
		p.headers.Set(headerEvent, string(e.Event))
	}
	// A client that hung up is no failure of ours, whatever the cancelled call said.
	x.gone = errors.Is(err, context.Canceled) && errors.Is(ctx.Err(), context.Canceled)
	if e.Kind.Status >= http.StatusInternalServerError && !x.gone {
		s.logFailure(ctx, x, e)
	}
	return p
}

// problemOf returns the row of the table that the error is, for this request.
func problemOf(e *med.Error, id string) *problem {
	k := e.Kind
	p := &problem{
		Type: problemURI(problemBase + k.Slug), Title: k.Title, Status: k.Status, Detail: k.Detail, Instance: "urn:uuid:" + id,
		Code: strings.ReplaceAll(k.Slug, "-", "_"), Category: category(k.Category), Errors: e.Fields, headers: http.Header{},
	}
	if k == med.Internal {
		p.Errors = nil // nothing but the reference
		return p
	}
	if e.Detail != "" {
		p.Detail = e.Detail
	}
	if e.Code != "" {
		p.Code = e.Code
	}
	if k == med.Unauthorized {
		p.headers.Set(headerFactor, "Bearer")
	}
	if e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		p.headers.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	return p
}

// logFailure logs a failure of ours. The cause of a known kind carries ids only,
// by the contract of med.Error. The text of an unforeseen error may carry
// anything, so outside dev only the types of its chain are logged.
func (s *Server) logFailure(ctx context.Context, x *exchange, e *med.Error) {
	attrs := []slog.Attr{slog.String("request", x.id), slog.String("kind", e.Kind.Slug), slog.String("route", x.route)}
	if e.Kind != med.Internal || s.cfg.Dev {
		attrs = append(attrs, slog.String("cause", e.Error()))
	} else {
		attrs = append(attrs, slog.String("cause_types", typesOf(e)))
	}
	s.cfg.Log.LogAttrs(ctx, slog.LevelError, "request failed", attrs...)
}

// typesOf names the types of an error's chain, outermost first.
func typesOf(err error) string {
	var types []string
	for err = errors.Unwrap(err); err != nil && len(types) < 16; err = errors.Unwrap(err) {
		types = append(types, fmt.Sprintf("%T", err))
	}
	return strings.Join(types, " < ")
}

// refuse answers with the problem that the error is.
func (s *Server) refuse(ctx context.Context, w http.ResponseWriter, x *exchange, err error) {
	writeProblem(w, s.problem(ctx, x, err))
}

func writeProblem(w http.ResponseWriter, p *problem) {
	body, err := json.Marshal(p)
	if err != nil {
		body = nil // strings and numbers always marshal; and the status refuses without a body
	}
	for name, values := range p.headers {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}
