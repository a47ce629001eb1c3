// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/medirecord/medirecord/internal/med"
)

// operation is what a route says of itself: it becomes its entry in the contract.
type operation struct {
	id, method, path, tag, summary, doc string           // method is GET unless it says otherwise
	status                              int              // of a success, 200 unless it says otherwise
	media                               string           // of a success, application/json unless it says otherwise
	errors                              []*med.ErrorKind // besides those that problems adds
	bodiless                            bool             // takes no body, though its method could
	glass                               bool             // stands on a break-glass grant where there is one
}

// askedFor is what headerFactor says in a success.
const askedFor = "There when the answer stands on a break-glass grant that was opened as one of more than 5 open or 10 new in an hour, and the second factor had not been proved in " +
	"the five minutes before, nor since: Bearer error=\"insufficient_user_authentication\" with the max_age of the factor that is asked for (RFC 9470). The answer is whole all the same."

// readErrors are what a read of patient data can end in.
var readErrors = append([]*med.ErrorKind{med.NotFound}, listErrors...)

// audited is an answer that names its audit entry.
type audited[O any] interface {
	*O
	entry() med.EventID
}

// named is an answer whose body names its request.
type named interface{ name(request string) }

var errNoEntry = errors.New("an answer came without an audit entry")

// handle adds a route that needs a caller. What its handler gives back leaves
// only with the audit entry that allows it.
func handle[I, O any, P audited[O]](s *Server, r *router, op operation, h func(context.Context, med.Caller, *I) (P, error)) {
	o := op.huma(s.cfg.MaxBody)
	if op.takesBody() {
		o.Middlewares = huma.Middlewares{uncoded(r.api)}
	}
	huma.Register(r.api, o, func(ctx context.Context, in *I) (*O, error) {
		x := exchangeFrom(ctx)
		if !x.known {
			return nil, s.problem(ctx, x, med.Unauthorized.New(""))
		}
		out, err := h(ctx, x.caller, in)
		if err == nil && (out == nil || out.entry() == "") {
			err = med.AuditUnavailable.Because(errNoEntry)
		}
		if err != nil {
			return nil, s.problem(ctx, x, err)
		}
		x.event = out.entry()
		if n, ok := any(out).(named); ok {
			n.name(x.id)
		}
		return out, nil
	})
	op.document(r)
}

// admit makes the caller of the exchange known. It reports what the Authenticator
// does, and Invalid for a request that could be read in two ways.
func (s *Server) admit(ctx context.Context, x *exchange, r *http.Request) error {
	caller, err := s.cfg.Auth.Authenticate(ctx, r.Header.Values("Authorization"), x.from)
	if err != nil {
		return err
	}
	caller.Origin, caller.Purpose, caller.Emergency, caller.Emergent, caller.AccessReason = x.from, "", "", false, ""
	if err := state(&caller, r.Header); err != nil {
		return err
	}
	if err := accessReason(&caller, r.Header); err != nil {
		return err
	}
	if err := checkQuery(r.URL.RawQuery, s.router.names); err != nil {
		return err
	}
	if bodiless(r.Method) && r.ContentLength != 0 {
		return med.Invalid.New("This method takes no body.")
	}
	if r.ContentLength > s.cfg.MaxBody {
		return med.TooLarge.New("") // before any of it is read
	}
	// There is one format; without this a client could choose what it is called.
	r.Header.Del("Accept")
	x.caller, x.known, x.names = caller, true, s.router.names
	return nil
}

// takesBody reports whether the operation reads a body.
func (op operation) takesBody() bool { return op.method != "" && !bodiless(op.method) && !op.bodiless }

// uncoded lets a body pass that is what it looks like: one in a coding could be read
// in two ways, by us and by whoever looked at it on the way; and a small one could
// become a large one.
func uncoded(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(c huma.Context, next func(huma.Context)) {
		kind := c.Header("Content-Type")
		_, _, err := mime.ParseMediaType(kind)
		switch {
		case c.Header(headerCoding) != "" && !strings.EqualFold(c.Header(headerCoding), "identity"):
			_ = huma.WriteErr(api, c, http.StatusUnsupportedMediaType, "", &huma.ErrorDetail{Location: headerCoding})
		case kind != "" && err != nil:
			_ = huma.WriteErr(api, c, http.StatusUnsupportedMediaType, "")
		default:
			next(c)
		}
	}
}

const headerCoding = "Content-Encoding"

func bodiless(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete
}

// contractVersion changes when the contract does, not with every build.
const contractVersion = "1.0.0"

// contract is the head of the OpenAPI document.
func contract() *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "MediRecord", Version: contractVersion,
			Description: "Patient records with role-based field masking, break-glass access, an audit trail, and fail-closed enforcement. " +
				"Every operation needs a bearer token of an issuer that the sidecar knows; every refusal is a problem (RFC 9457) of those that the operation lists.",
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Servers: []*huma.Server{{URL: "/"}},
		Tags: []*huma.Tag{
			{Name: "patients", Description: "Patients as the caller may see them."},
			{Name: "records", Description: "Health records, as far as the caller may see them."},
			{Name: "audit", Description: "Who saw what, when, and why."},
			{Name: "treatment", Description: "Who has to do with whom: appointments and assignments."},
			{Name: "break-glass", Description: "Emergency access: who opened it, and who reviewed it."},
			{Name: "disclosures", Description: "To whom data of a patient was disclosed, 45 CFR 164.528."},
		},
		Components: &huma.Components{
			Schemas:  huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			Examples: problemExamples(),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The token of an issuer that the sidecar knows."},
			},
		},
	}
}

// huma returns the operation in the library's words. The headers that every
// guarded route takes are read by admit, and only described here.
func (op operation) huma(maxBody int64) huma.Operation {
	if op.method == "" {
		op.method = http.MethodGet
	}
	var success map[string]*huma.Response
	if op.media != "" {
		success = map[string]*huma.Response{"200": {Content: map[string]*huma.MediaType{op.media: {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	}
	return huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, Description: op.doc, Tags: []string{op.tag},
		Security: []map[string][]string{{"bearer": {}}},
		Errors:   op.statuses(), MaxBodyBytes: maxBody, DefaultStatus: op.status, Responses: success,
		Parameters: []*huma.Param{
			{Name: headerReason, In: "header", Description: "Why this is an emergency, 10 to 500 characters. Opens or continues a break-glass grant: all fields, always audited, an officer is paged.", Schema: &huma.Schema{Type: huma.TypeString}, Example: "Patient in ER, consent unreachable"},
			{Name: headerPurpose, In: "header", Description: "Purpose of use, for the audit entry.", Schema: &huma.Schema{Type: huma.TypeString, Enum: anys(purposes)}},
			{Name: headerAccess, In: "header", Description: "Why the caller looks into the chart of somebody they do not treat. A policy may ask for it; it is kept in the audit entry.", Schema: &huma.Schema{Type: huma.TypeString, Enum: anys(med.ReasonCodes)}},
			{Name: "traceparent", In: "header", Description: "W3C trace context; its trace id goes into the audit entry.", Schema: &huma.Schema{Type: huma.TypeString}},
		},
	}
}

// document adds to the contract what the library cannot know: which problems a
// status stands for, and the header that every answer has. And it learns the
// contract's words.
func (op operation) document(r *router) {
	o := r.api.OpenAPI().Paths[op.path]
	for _, documented := range []*huma.Operation{o.Get, o.Post, o.Put, o.Patch, o.Delete} {
		if documented == nil || documented.OperationID != op.id {
			continue
		}
		for status, response := range documented.Responses {
			op.refusals(status, response)
			for _, h := range response.Headers {
				if h.Description == "" && h.Schema != nil { // where the page of the documentation looks
					h.Description, h.Schema.Description = h.Schema.Description, ""
				}
			}
			response.Headers[headerRequest] = &huma.Param{Description: "Names this request; also in the problem and the audit entry.", Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"}}
		}
		for _, p := range documented.Parameters {
			r.names[p.Name] = true
		}
	}
	for _, schema := range r.api.OpenAPI().Components.Schemas.Map() {
		for name := range schema.Properties {
			r.names[name] = true
		}
	}
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
