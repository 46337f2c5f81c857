// SPDX-License-Identifier: Apache-2.0

// Command nethttp serves the test service with net/http's own mux. Usage: nethttp PORT
//
// With TLS_CERT and TLS_KEY in its environment it serves HTTP/1 over TLS, with HTTP2 HTTP/2, too.
package main

import (
	"crypto/tls"
	"log"
	"net/http"
	"os"

	"otelauto.test/servers/accesslog"
	"otelauto.test/servers/service"
)

func main() {
	mux := http.NewServeMux()
	for name, handler := range service.Handlers {
		mux.HandleFunc("/"+name+"/", handler)
	}
	mux.HandleFunc("/status/", service.Status)
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: accesslog.Wrap(mux)}
	if cert, found := os.LookupEnv("TLS_CERT"); found {
		if _, found := os.LookupEnv("HTTP2"); !found {
			server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		log.Fatal(server.ListenAndServeTLS(cert, os.Getenv("TLS_KEY")))
	}
	log.Fatal(server.ListenAndServe())
}
