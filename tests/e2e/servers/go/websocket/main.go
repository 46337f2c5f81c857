// SPDX-License-Identifier: Apache-2.0

// Command websocket echoes each message of a WebSocket, inside TLS if $TLS_CERT and $TLS_KEY are set. Usage: websocket PORT
package main

import (
	"log"
	"net/http"
	"os"

	"golang.org/x/net/websocket"
)

func echo(ws *websocket.Conn) {
	ws.MaxPayloadBytes = 1 << 20
	for {
		var message string
		if websocket.Message.Receive(ws, &message) != nil {
			return
		}
		if websocket.Message.Send(ws, message) != nil {
			return
		}
	}
}

func main() {
	address, handler := "127.0.0.1:"+os.Args[1], websocket.Handler(echo)
	if cert := os.Getenv("TLS_CERT"); cert != "" {
		log.Fatal(http.ListenAndServeTLS(address, cert, os.Getenv("TLS_KEY"), handler))
	}
	log.Fatal(http.ListenAndServe(address, handler))
}
