// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"

	"github.com/danielgtaylor/huma/v2"

	"github.com/medirecord/medirecord/internal/med"
)

const (
	headerMatch = "If-Match"
	headerOnce  = "Idempotency-Key"
)

// changeErrors are what a change of something that was read before can end in.
var changeErrors = append([]*med.ErrorKind{med.Stale, med.PreconditionRequired}, readErrors...)

// patchOf is the body of a write: a JSON merge patch (RFC 7386) of what T
// documents. It keeps which of its fields were sent, null among them, which a
// struct would lose; that they are T's, Huma has checked.
type patchOf[T any] struct{ fields map[string]json.RawMessage }

// Schema is T's.
func (patchOf[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// UnmarshalJSON keeps the fields as they were sent.
func (p *patchOf[T]) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &p.fields); err != nil || p.fields == nil {
		return errors.New("not an object") // the decoder's own words repeat what it read
	}
	return nil
}

// patch is what is to become of which field.
func (p *patchOf[T]) patch() med.Patch {
	out := make(med.Patch, len(p.fields))
	for name, raw := range p.fields {
		out[med.Field(name)] = med.PHI(raw)
	}
	return out
}

// sent is the whole body, to know it again by.
func (p *patchOf[T]) sent() (med.PHI, error) {
	b, err := json.Marshal(p.fields)
	return med.PHI(b), err
}

// MatchInput is the header of every change. Embed it; it is exported because
// Huma looks into no other embedded type.
type MatchInput struct {
	Match string `header:"If-Match" maxLength:"200" doc:"The ETag of what you read. Needed: without it a change could undo another's. One strong tag, no list and no *." example:"\"Jk2dW9xQmVzc2kxMjM0NQ\""`
}

var strongTag = regexp.MustCompile(`^"([A-Za-z0-9_-]{1,64})"$`)

// seen is the tag of what the caller saw last. It reports PreconditionRequired
// without one, and Invalid for what is no strong tag of ours.
func (in MatchInput) seen() (string, error) {
	if in.Match == "" {
		return "", med.PreconditionRequired.New("")
	}
	m := strongTag.FindStringSubmatch(in.Match)
	if m == nil {
		return "", med.Invalid.New("").With(med.FieldError{Pointer: headerMatch, Reason: "not one ETag as you got it, quotes and all"})
	}
	return m[1], nil
}

// OnceInput is the header of whatever makes something. Embed it.
type OnceInput struct {
	Key string `header:"Idempotency-Key" minLength:"1" maxLength:"255" doc:"1 to 255 visible ASCII characters of your choice. The same request with the same key within 24 hours gets what the first one made; another request with it is a conflict." example:"admission-2026-0042"`
}

var visible = regexp.MustCompile(`^[\x21-\x7e]{0,255}$`)

// once says that the request is made once, if it has a key.
func (in OnceInput) once(route string, sent med.PHI) (med.Once, error) {
	if !visible.MatchString(in.Key) {
		return med.Once{}, med.Invalid.New("").With(med.FieldError{Pointer: headerOnce, Reason: reasonKey})
	}
	return med.Once{Key: in.Key, Route: route, Sent: sent}, nil
}

// onceOf is once for a body that is read whole, by what it says.
func onceOf[T any](in OnceInput, route string, body T) (med.Once, error) {
	sent, err := json.Marshal(body)
	if err != nil {
		return med.Once{}, err
	}
	return in.once(route, med.PHI(sent))
}

// etag is a tag as the header has it.
func etag(tag string) string { return `"` + tag + `"` }

// tagged is an answer that says by its ETag which state it shows.
type tagged[T any] struct {
	Event  string `header:"Audit-Event-Id" doc:"The audit entry of this answer."`
	ETag   string `header:"ETag" doc:"Names what this caller sees: another when that changes, and the same when only what they do not see does. Give it as If-Match with a change."`
	Body   envelope[T]
	Factor string `header:"WWW-Authenticate" hidden:"true"` // of operations that are glass
}

func (a *tagged[T]) entry() med.EventID { return med.EventID(a.Event) }

func (a *tagged[T]) name(request string) { a.Body.Meta.Request = request }

// createdTagged is tagged of 201, with where it is.
type createdTagged[T any] struct {
	Event    string `header:"Audit-Event-Id" doc:"The audit entry of this answer."`
	ETag     string `header:"ETag" doc:"Names what this caller sees of it."`
	Location string `header:"Location" doc:"Where it is."`
	Body     envelope[T]
}

func (a *createdTagged[T]) entry() med.EventID { return med.EventID(a.Event) }

func (a *createdTagged[T]) name(request string) { a.Body.Meta.Request = request }

// done is the answer of what leaves nothing to show: 204.
type done struct {
	Event string `header:"Audit-Event-Id" doc:"The audit entry of this."`
}

func (a *done) entry() med.EventID { return med.EventID(a.Event) }

// integrity is what meta says of a chart.
func integrity(suspect bool) string {
	if suspect {
		return "suspect"
	}
	return ""
}

// sighted says in an answer's envelope what of the fields the view masks and hides.
func sighted[T any](e *envelope[T], v med.View, fields []med.Field) {
	masked, hidden := []med.Field{}, []med.Field{}
	for _, f := range fields {
		switch v[f] {
		case med.Mask:
			masked = append(masked, f)
		case med.Hide:
			hidden = append(hidden, f)
		case med.Reveal:
		}
	}
	e.Meta.View = &view{Masked: masked, Hidden: hidden}
}
