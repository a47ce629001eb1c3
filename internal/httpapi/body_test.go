// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/medirecord/medirecord/internal/med"
)

type noteInput struct {
	ID   string `path:"id"`
	Body struct {
		Text  string   `json:"text" minLength:"2" maxLength:"20"`
		Kind  string   `json:"kind,omitempty" enum:"note,letter"`
		Tags  []string `json:"tags,omitempty" maxItems:"2"`
		On    string   `json:"on,omitempty" format:"date"`
		At    string   `json:"at,omitempty" format:"date-time"`
		Which string   `json:"which,omitempty" format:"uuid"`
		Inner struct {
			Count int `json:"count,omitempty" maximum:"9"`
		} `json:"inner,omitempty"`
	}
}

type noteAnswer struct {
	Event string `header:"Audit-Event-Id"`
	Body  struct {
		Text string `json:"text"`
	}
}

func (a *noteAnswer) entry() med.EventID { return med.EventID(a.Event) }

// A route that takes a body, by the same five lines as the others, refuses every
// bad one and repeats nothing of it.
func TestBodies(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	handle(h.Server, &h.router, operation{id: "note", method: http.MethodPost, path: "/notes/{id}", summary: "A note", errors: readErrors},
		func(_ context.Context, _ med.Caller, in *noteInput) (*noteAnswer, error) {
			out := &noteAnswer{Event: eventID}
			out.Body.Text = in.Body.Text
			return out, nil
		})
	url := h.start(t) + "/notes/n1"
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	tests := []struct {
		name, body string
		status     int
		part       string
	}{
		{"good", `{"text":"hello"}`, 200, `{"text":"hello"}`},
		{"joiners are text", `{"text":"` + "\u200d\u200c" + `ab"}`, 200, "ab"},
		{"a pair of surrogates is one character", `{"text":"a\ud83d\ude00"}`, 200, "a\U0001F600"},
		{"an escaped backslash is no escape", `{"text":"a\\ud83d"}`, 200, `a\\ud83d`},
		{"the first half of a pair", `{"text":"a\ud83d"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"the first half of a pair, and a character", `{"text":"a\ud83d\u0062"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"the second half of a pair", `{"text":"a\uDE00b"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"half a pair in a key", `{"text":"ab","\ud83d":1}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"empty", ``, 422, `"errors":[{"pointer":"/","reason":"required"}]`},
		{"not JSON", mark, 422, `"errors":[{"pointer":"/","reason":"not one JSON value"}]`},
		{"half", `{"text":"` + mark, 422, `"errors":[{"pointer":"/","reason":"not one JSON value"}]`},
		{"two values", `{"text":"hello"}{"text":"` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"not one JSON value"}]`},
		{"a key twice", `{"text":"hello","text":"` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"a key given twice"}]`},
		{"a key twice, disguised", `{"text":"hello","\u0074ext":"` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"a key given twice"}]`},
		{"a key in capitals", `{"TEXT":"` + mark + `"}`, 422, `{"pointer":"/","reason":"an unknown property"}`},
		{"an unknown key", `{"text":"hello","` + mark + `":"` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"an unknown property"}]`},
		{"an unknown key inside", `{"text":"hello","inner":{"` + mark + `":1}}`, 422, `"errors":[{"pointer":"/inner","reason":"an unknown property"}]`},
		{"a key with dots", `{"text":"hello","inner.` + mark + `.x[0]":1}`, 422, `"reason":"an unknown property"`},
		{"missing", `{"kind":"note"}`, 422, `"errors":[{"pointer":"/text","reason":"required"}]`},
		{"too short", `{"text":"Z"}`, 422, `{"pointer":"/text","reason":"length at least 2"}`},
		{"too long", `{"text":"` + strings.Repeat(mark, 9) + `"}`, 422, `{"pointer":"/text","reason":"length at most 20"}`},
		{"another type", `{"text":{"a":"` + mark + `"}}`, 422, `{"pointer":"/text","reason":"not a string"}`},
		{"not among", `{"text":"hello","kind":"` + mark + `"}`, 422, `{"pointer":"/kind","reason":"not one of the allowed values"}`},
		{"no day", `{"text":"hello","on":"2026-02-30"}`, 422, `{"pointer":"/on","reason":"not a day, like 2026-03-01"}`},
		{"no time", `{"text":"hello","at":"2026-03-01T08:30:00"}`, 422, `{"pointer":"/at","reason":"not a time with its zone, like 2026-03-01T08:30:00Z"}`},
		{"no UUID", `{"text":"hello","which":"` + mark + `"}`, 422, `{"pointer":"/which","reason":"not a UUID"}`},
		{"too many", `{"text":"hello","tags":["a","b","` + mark + `"]}`, 422, `{"pointer":"/tags","reason":"items at most 2"}`},
		{"an item of another type", `{"text":"hello","tags":["a",7]}`, 422, `{"pointer":"/tags/1","reason":"not a string"}`},
		{"too high", `{"text":"hello","inner":{"count":77}}`, 422, `{"pointer":"/inner/count","reason":"at most 9"}`},
		{"no object", `["` + mark + `"]`, 422, `{"pointer":"/","reason":"not an object"}`},
		{"null", `null`, 422, `"code":"invalid"`},
		{"too deep", deep, 422, `"errors":[{"pointer":"/","reason":"nested deeper than 32"}]`},
		{"not UTF-8", "{\"text\":\"hello\xff" + mark + "\"}", 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"a NUL", `{"text":"hello\u0000` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"turned round", `{"text":"hello\u202e` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"turned round in a key", `{"te\u202ext":"` + mark + `"}`, 422, `"errors":[{"pointer":"/","reason":"control or direction characters, or not UTF-8"}]`},
		{"too large", `{"text":"` + strings.Repeat("a", 1<<20) + `"}`, 413, `"code":"too_large"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, chunked := range []bool{false, true} {
				body := struct{ *strings.Reader }{strings.NewReader(test.body)} // hides the length
				var got reply
				if chunked {
					got = askAs(t, "clinician", "POST", url, body, "Content-Type", "application/json")
				} else {
					got = askAs(t, "clinician", "POST", url, strings.NewReader(test.body), "Content-Type", "application/json; charset=utf-8")
				}
				if got.status != test.status || !strings.Contains(got.body, test.part) {
					t.Errorf("chunked %v: got %d %.300s\nwant %d … %s", chunked, got.status, got.body, test.status, test.part)
				}
				if strings.Contains(got.body, mark) || strings.Contains(got.body, "77") {
					t.Error("repeated: " + got.body)
				}
			}
		})
	}
	for _, kind := range []string{"text/plain", "application/xml", "multipart/form-data; boundary=" + mark, ";+", mark} {
		got := askAs(t, "clinician", "POST", url, strings.NewReader(`{"text":"hello"}`), "Content-Type", kind)
		if got.status != 415 || strings.Contains(got.body, mark) {
			t.Errorf("%s: got %d %s", kind, got.status, got.body)
		}
	}
	for coding, want := range map[string]int{"identity": 200, "Identity": 200, "gzip": 415, "br": 415, "identity, gzip": 415, mark: 415} {
		got := askAs(t, "clinician", "POST", url, strings.NewReader(`{"text":"hello"}`), "Content-Type", "application/json", "Content-Encoding", coding)
		if got.status != want || want == 415 && !strings.Contains(got.body, "without a Content-Encoding") || strings.Contains(got.body, mark) {
			t.Errorf("in the coding %s: got %d %s, want %d", coding, got.status, got.body, want)
		}
	}
	if strings.Contains(h.log.String(), mark) {
		t.Error("repeated in the log")
	}
}

// The limit holds whatever the client says of the length, and whoever reads.
func TestTheLimitOfBodies(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.MaxBody = 100 })
	handle(h.Server, &h.router, operation{id: "note", method: http.MethodPost, path: "/notes/{id}", errors: readErrors},
		func(context.Context, med.Caller, *noteInput) (*noteAnswer, error) {
			return &noteAnswer{Event: eventID}, nil
		})
	var read error
	h.router.engine.POST("/raw", func(c *gin.Context) { _, read = io.ReadAll(c.Request.Body) })
	url := h.start(t)
	unsized := func() io.Reader {
		return struct{ io.Reader }{strings.NewReader(`{"text":"` + strings.Repeat(" ", 200) + `"}`)}
	}
	if got := askAs(t, "clinician", "POST", url+"/notes/n1", unsized()); got.status != 413 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	askAs(t, "clinician", "POST", url+"/raw", unsized())
	if large := (*http.MaxBytesError)(nil); !errors.As(read, &large) || large.Limit != 100 {
		t.Errorf("read on: %v", read)
	}
}

func FuzzCheckJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}]}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkJSON(data) != nil {
			return
		}
		var v any
		if err := unmarshal(data, &v); err != nil {
			t.Fatalf("let through, yet unreadable: %q", data)
		}
	})
}
