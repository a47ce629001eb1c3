// SPDX-License-Identifier: Apache-2.0

package httpapi

import "github.com/medirecord/medirecord/internal/med"

// envelope is the form in which the versioned face, /api/v1, answers.
type envelope[T any] struct {
	Data T       `json:"data"`
	Meta meta    `json:"meta"`
	Page *paging `json:"page,omitempty" doc:"Only of lists."`
}

type meta struct {
	Request string `json:"request_id" format:"uuid" doc:"Names this request; X-Request-Id says the same."`
	Event   string `json:"audit_event_id" format:"uuid" doc:"The audit entry of this answer; Audit-Event-Id says the same."`
	View    *view  `json:"view,omitempty" doc:"What this caller sees masked, or not at all, whether or not there is a value."`
	// Integrity is there when the chart is not what was written.
	Integrity string `json:"integrity,omitempty" enum:"suspect" doc:"suspect: what is stored does not match what was written; an alarm was raised. Absent when all is well."`
}

type view struct {
	Masked []med.Field `json:"masked"`
	Hidden []med.Field `json:"hidden"`
}

type paging struct {
	Limit int    `json:"limit" doc:"How many items a page has at most."`
	Next  string `json:"next,omitempty" doc:"Give it as cursor to read on. It holds for an hour, for the same caller and the same query. The last page has none; a page may have few items, or none, and still a next."`
}

// answer is an answer of the versioned face: what a handler gives back, made by
// answered or listed.
type answer[T any] struct {
	Event  string `header:"Audit-Event-Id" doc:"The audit entry of this answer."`
	Body   envelope[T]
	Factor string `header:"WWW-Authenticate" hidden:"true"` // of operations that are glass
}

func (a *answer[T]) entry() med.EventID { return med.EventID(a.Event) }

// name puts the request's id, which handle knows, into the answer.
func (a *answer[T]) name(request string) { a.Body.Meta.Request = request }

// answered is the answer with this one thing as its data.
func answered[T any](event med.EventID, data T) *answer[T] {
	return &answer[T]{Event: string(event), Body: envelope[T]{Data: data, Meta: meta{Event: string(event)}}}
}

// paged is the answer with one page of a list as its data. No items are [] and
// not null.
func paged[T any](event med.EventID, items []T, p med.Page, next string) *answer[[]T] {
	if items == nil {
		items = []T{}
	}
	a := answered(event, items)
	a.Body.Page = &paging{Limit: int(p.Rows()), Next: next}
	return a
}

// created is an answer of 201: what was made, and where it is. Its operation
// says status: http.StatusCreated.
type created[T any] struct {
	Event    string `header:"Audit-Event-Id" doc:"The audit entry of this answer."`
	Location string `header:"Location" doc:"Where it is."`
	Body     envelope[T]
	Factor   string `header:"WWW-Authenticate" hidden:"true"` // of operations that are glass
}

func (a *created[T]) entry() med.EventID { return med.EventID(a.Event) }

func (a *created[T]) name(request string) { a.Body.Meta.Request = request }

// made is the answer of 201 with what was made as its data.
func made[T any](event med.EventID, data T, location string) *created[T] {
	return &created[T]{Event: string(event), Location: location, Body: answered(event, data).Body}
}

// PageInput are the parameters of every list. Embed it; it is exported because
// Huma looks into no other embedded type.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many items at most."`
	Cursor string `query:"cursor" maxLength:"1024" doc:"page.next of the page before. Everything else must be asked as it was then, but for the limit."`
}

// page is what the list is asked for.
func (p PageInput) page() med.Page { return med.Page{Limit: p.Limit, Cursor: p.Cursor} }
