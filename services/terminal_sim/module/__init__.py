"""The ``MetaTrader5`` module of a terminal's process: functions, structs and their manners."""
