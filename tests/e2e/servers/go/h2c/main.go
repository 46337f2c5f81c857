// SPDX-License-Identifier: Apache-2.0

// Command h2c serves the test service in HTTP/2 without TLS, and in HTTP/1. Usage: h2c PORT
package main

import (
	"log"
	"net/http"
	"os"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"otelauto.test/servers/accesslog"
	"otelauto.test/servers/service"
)

func main() {
	mux := http.NewServeMux()
	for name, handler := range service.Handlers {
		mux.HandleFunc("/"+name+"/", handler)
	}
	mux.HandleFunc("/status/", service.Status)
	handler := h2c.NewHandler(accesslog.Wrap(mux), &http2.Server{MaxConcurrentStreams: 250})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], handler))
}
