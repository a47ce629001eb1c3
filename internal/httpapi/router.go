// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/medirecord/medirecord/internal/med"
)

// router is Gin with Huma on it. There are three ways to add a route: handle,
// which needs a caller and an entry; hashRoute, which needs a caller and serves
// hashes of the log; and openRoute, which needs neither.
type router struct {
	engine *gin.Engine
	api    huma.API
	names  names
	open   map[string]bool // paths that anybody may read

	guarded *gin.RouterGroup
}

// ServeHTTP finds the route and answers.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.engine.ServeHTTP(w, req) }

func newRouter(s *Server) (router, error) {
	libraries()
	engine := gin.New() // not Default: its logger prints queries, its recovery headers
	if err := engine.SetTrustedProxies(nil); err != nil {
		return router{}, fmt.Errorf("trusting no proxy: %w", err)
	}
	// Routes are matched as the client wrote the path: an encoded slash is part of
	// an id, and then of an illegal one, never a way to another route.
	engine.UseEscapedPath = true
	// Redirects would repeat the path, and a header of the client's choice.
	engine.RedirectTrailingSlash, engine.RedirectFixedPath = false, false
	engine.HandleMethodNotAllowed = true

	engine.Use(func(c *gin.Context) { exchangeFrom(c.Request.Context()).route = c.FullPath() })
	engine.NoRoute(s.refused(med.NotFound))
	engine.NoMethod(s.refused(med.MethodNotAllowed)) // Gin has set Allow

	// Everything that Huma registers needs a caller: this is the one place.
	guarded := engine.Group("/", s.authenticate)
	r := router{engine: engine, api: humagin.NewWithGroup(engine, guarded, humaConfig()), names: names{}, open: map[string]bool{}, guarded: guarded}
	s.patientRoutes(&r)
	s.patientsRoutes(&r)
	s.searchRoutes(&r)
	s.lookupRoutes(&r)
	s.auditRoutes(&r)
	s.trailRoutes(&r)
	s.proofRoutes(&r)
	s.accessRoutes(&r)
	s.disclosureRoutes(&r)
	s.treatmentRoutes(&r)
	s.glassRoutes(&r)
	s.recordRoutes(&r)
	return r, s.docsRoutes(&r)
}

// libraries sets what Gin and Huma keep in package variables, once for the
// process: they are the same for every server.
var libraries = sync.OnceFunc(func() {
	gin.SetMode(gin.ReleaseMode)
	huma.ValidateStrictCasing = true // or {"ADMIN":true} would be read as admin
	huma.DefaultArrayNullable = false
	huma.NewError = func(int, string, ...error) huma.StatusError { return &problem{} } // for its schema only
	huma.NewErrorWithContext = validationProblem
})

// validationProblem replaces Huma's own error, which repeats the value.
func validationProblem(hc huma.Context, status int, _ string, errs ...error) huma.StatusError {
	x := exchangeFrom(hc.Context())
	var at []located
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok { //nolint:errorlint // Huma hands over its own type, unwrapped
			at = append(at, located{d.ErrorDetail().Location, d.ErrorDetail().Message})
		}
	}
	e := x.names.invalid(status, at)
	p := problemOf(e, x.id)
	x.code = p.Code
	return p
}

func humaConfig() huma.Config {
	format := huma.Format{Marshal: marshal, Unmarshal: unmarshal}
	return huma.Config{
		OpenAPI: contract(),
		Formats: map[string]huma.Format{"application/json": format, "json": format},
		// The paths of the library's own pages stay empty: they load scripts from a CDN.
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

// marshal writes the JSON whole or not at all.
func marshal(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing JSON of a %T: %w", v, err)
	}
	_, err = w.Write(b)
	return err
}

// unmarshal reads JSON that every reader reads alike.
func unmarshal(data []byte, v any) error {
	if err := checkJSON(data); err != nil {
		return err
	}
	return json.NewDecoder(bytes.NewReader(data)).Decode(v)
}

// refused answers with the kind, for the paths and methods that do not exist.
func (s *Server) refused(k *med.ErrorKind) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx := c.Request.Context()
		s.refuse(ctx, c.Writer, exchangeFrom(ctx), k.New(""))
	}
}

// authenticate lets a request pass whose caller is known and who says nothing
// ambiguous.
func (s *Server) authenticate(c *gin.Context) {
	ctx := c.Request.Context()
	x := exchangeFrom(ctx)
	err := s.admit(ctx, x, c.Request)
	if err != nil {
		s.refuse(ctx, c.Writer, x, err)
		c.Abort()
	}
}

// hashRoute adds a route that needs a caller and leaves no entry: it may serve
// hashes of the trail's log and nothing else.
func (r *router) hashRoute(path string, h gin.HandlerFunc) { r.guarded.GET(path, h) }

// openRoute adds a route that anybody may read.
func (r *router) openRoute(path string, h http.HandlerFunc) {
	r.open[path] = true
	r.engine.GET(path, gin.WrapF(h))
}
