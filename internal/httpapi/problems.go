// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/medirecord/medirecord/internal/med"
)

// everywhere is what any guarded operation can end in: nobody known, a request
// that is not valid, too many of them, and the parts that each needs.
var everywhere = []*med.ErrorKind{
	med.Unauthorized, med.Invalid, med.RateLimited, med.Internal, med.DatabaseUnavailable, med.AuditUnavailable,
}

// withBody is what an operation can end in besides when it takes a body.
var withBody = []*med.ErrorKind{med.TooLarge, med.UnsupportedMedia}

// problems are all that the operation can end in, in the order of the table.
func (op operation) problems() []*med.ErrorKind {
	all := append(slices.Clone(everywhere), op.errors...)
	switch {
	case op.takesBody():
		all = append(all, withBody...)
	case op.bodiless: // what is sent all the same is not read
		all = append(all, med.TooLarge)
	}
	return slices.DeleteFunc(slices.Clone(med.ErrorKinds), func(k *med.ErrorKind) bool { return !slices.Contains(all, k) })
}

func (op operation) statuses() []int {
	var out []int
	for _, k := range op.problems() {
		if !slices.Contains(out, k.Status) {
			out = append(out, k.Status)
		}
	}
	return out
}

// refusals says in the contract which problems the status stands for, one
// example each, and which headers they have.
func (op operation) refusals(status string, r *huma.Response) {
	if r.Headers == nil {
		r.Headers = map[string]*huma.Param{}
	}
	examples, slugs := map[string]*huma.Example{}, []string{}
	for _, k := range op.problems() {
		if strconv.Itoa(k.Status) == status {
			slugs = append(slugs, k.Slug)
			examples[k.Slug] = &huma.Example{Ref: "#/components/examples/" + k.Slug}
		}
	}
	if len(slugs) == 0 { // a success
		if op.glass {
			r.Headers[headerFactor] = &huma.Param{Description: askedFor, Schema: &huma.Schema{Type: huma.TypeString}}
		}
		return
	}
	r.Description = strings.Join(slugs, ", ")
	r.Content[problemType].Examples = examples
	r.Headers[headerEvent] = &huma.Param{Description: "The audit entry of the refusal, when it has one of its own.", Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"}}
	switch status {
	case "401":
		r.Headers[headerFactor] = &huma.Param{Description: "Bearer.", Schema: &huma.Schema{Type: huma.TypeString}}
	case "429":
		r.Headers["Retry-After"] = &huma.Param{Description: "For how many seconds to wait.", Schema: &huma.Schema{Type: huma.TypeInteger}}
	}
}

// problemExamples are the rows of the table as the contract shows them.
func problemExamples() map[string]*huma.Example {
	out := map[string]*huma.Example{}
	for _, k := range med.ErrorKinds {
		value := map[string]any{
			"type": problemBase + k.Slug, "title": k.Title, "status": k.Status, "detail": k.Detail,
			"instance": "urn:uuid:01977f3e-5c00-7000-8000-000000000001", "code": med.CodeOf(k.New("")), "hipaa_category": k.Category,
		}
		if k == med.Invalid {
			value["errors"] = []map[string]string{{"pointer": "limit", "reason": "at most 200"}}
		}
		out[k.Slug] = &huma.Example{Summary: k.Detail, Value: value, Extensions: map[string]any{"x-retryable": k.Retryable}}
	}
	return out
}

// problemURI is the type of a problem.
type problemURI string

// Schema lists the types, from the one table of them.
func (problemURI) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, Format: "uri", Description: "Which problem it is; docs/problems.md tells of each.", Examples: []any{problemBase + med.Unauthorized.Slug}}
	for _, k := range med.ErrorKinds {
		s.Enum = append(s.Enum, problemBase+k.Slug)
	}
	return s
}

// category is the HIPAA category of a problem.
type category string

// Schema lists the categories, from the one table of them.
func (category) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, Description: "The safeguard of 45 CFR 164 that it belongs to.", Examples: []any{med.Unauthorized.Category}}
	for _, c := range slices.Sorted(maps.Keys(med.Categories)) {
		s.Enum = append(s.Enum, c)
	}
	return s
}

// ProblemsMarkdown returns the page that documents the problem table.
func ProblemsMarkdown() string {
	var b strings.Builder
	b.WriteString(problemsIntro)
	for _, k := range med.ErrorKinds {
		retry := "no"
		if k.Retryable {
			retry = "yes"
		}
		rule := "none"
		if r := med.Categories[k.Category]; r != "" {
			rule = "`" + k.Category + "` " + r
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s | %s |\n", k.Status, k.Slug, k.Title, k.Detail, rule, retry)
	}
	b.WriteString(codesIntro)
	for _, c := range med.ErrorCodes {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", c.Code, c.Kind.Slug, c.Says)
	}
	return b.String()
}

const problemsIntro = `# Problems

Made from the table in ` + "`internal/med/error.go`" + ` by ` + "`go test ./internal/httpapi -update`" + `. Do not edit.

Every refusal is an RFC 9457 problem (` + "`application/problem+json`" + `): ` + "`type`" + ` is
` + "`" + problemBase + "<slug>`" + `, ` + "`instance`" + ` is the request id as a URN (quote it), ` + "`code`" + ` is the slug with
underscores unless it says more, ` + "`hipaa_category`" + ` names the safeguard of 45 CFR 164. A problem with a request's content
lists ` + "`errors`" + `: where (a pointer that begins with / points into the body, any other names a parameter or a header) and why,
never with which value. ` + "`openapi.yaml`" + ` lists for each operation which of them it can give; a test holds it to that.

What is worth a retry is worth the same request again, later: after as many seconds as ` + "`Retry-After`" + ` says, or else with
pauses that grow. Nothing else is, until the request, the caller or the resource is another.

| status | slug | title | detail, unless it says more | safeguard | worth a retry |
|---|---|---|---|---|---|
`

const codesIntro = `
## Codes that say more

A program may tell these apart; one that does not know a code goes by the type.

| code | of | says |
|---|---|---|
`
