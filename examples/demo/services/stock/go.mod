module otelauto.example/stock

go 1.22
