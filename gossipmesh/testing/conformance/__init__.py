"""What an engine must do, asked of any executable by its sockets; the specification is in `spec/engine`."""
