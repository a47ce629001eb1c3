// SPDX-License-Identifier: Apache-2.0

// Package ginsdk puts the CoreSDK sidecar before the handlers of a Gin
// service. A request without a bearer token that the sidecar calls valid gets
// the problem 401 and goes no further, whatever the reason: there is no
// option that lets one pass, no path that is skipped, and nothing that is
// remembered from one request to the next. It never logs.
//
//	r := gin.New()
//	r.Use(gin.Recovery(), ginsdk.Middleware(sdk))
//	r.GET("/appointments", ginsdk.RequireRole("clinician"), list)
//
// Routes that need no token, such as a health check, are registered before
// Use, or on a router of their own.
package ginsdk
