// SPDX-License-Identifier: Apache-2.0

// Command nethttp answers every request with a short text. Usage: nethttp PORT
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/items/", func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("Content-Type", "text/plain")
		io.WriteString(writer, "item "+request.URL.Path[len("/items/"):]+"\n")
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
